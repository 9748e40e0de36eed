"""The page's style sheet: light and dark by the reader's preference, and a plain one on paper."""

CSS = """
:root{color-scheme:light dark;--paper:#fdfdfc;--ink:#1c1f23;--soft:#555c66;--rule:#d5d8dc;
--grid:#e6e8eb;--box:#f3f4f2;--link:#005a92;--good:#00664b;--bad:#a33f00;--even:#6b4a00;
--none:#555c66}
@media (prefers-color-scheme:dark){:root{--paper:#15181c;--ink:#e8e9ea;--soft:#a9b0b9;
--rule:#3a4048;
--grid:#2b3037;--box:#1d2126;--link:#7cc4f2;--good:#4fd1a5;--bad:#ff9a5c;--even:#f0c05a;
--none:#a9b0b9}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 'Source Sans 3','Segoe UI',
Roboto,'Helvetica Neue','Liberation Sans',Arial,sans-serif;-webkit-text-size-adjust:100%}
main,header{max-width:68rem;margin:0 auto;padding:0 1.5rem}
header{padding-top:2.2rem}
.kicker{color:var(--soft);margin:0;font-size:.95rem}
h1{font-size:1.15rem;font-weight:600;margin:.2rem 0 1rem}
.answer{font-size:1.65rem;line-height:1.3;font-weight:600;margin:0 0 1rem;text-wrap:pretty;
overflow-wrap:anywhere}
.answer.long{font-size:1.3rem}
.banner{border:2px solid var(--even);color:var(--even);padding:.5rem .8rem;font-weight:700;
margin:1rem 0}
nav{margin:1rem 0 0;font-size:.92rem;border-top:1px solid var(--rule);
border-bottom:1px solid var(--rule);
padding:.45rem 0}
nav a{margin-right:1.1rem;white-space:nowrap}
a{color:var(--link)}
h2{font-size:1.3rem;margin:2.6rem 0 .5rem;line-height:1.25}
h3{font-size:1.05rem;margin:2rem 0 .3rem}
p{margin:.4rem 0 .8rem;max-width:52rem}
.soft{color:var(--soft);font-size:.92rem}
figure{margin:1.6rem 0 2rem}
figcaption{max-width:52rem;margin-bottom:.4rem}
figure td:first-child{min-width:8rem}
figcaption b{display:block;font-size:1.05rem}
.plot{width:100%;overflow-x:auto}
.scroll{overflow-x:auto;margin:.5rem 0}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums;
border-top:1.5px solid var(--ink);border-bottom:1.5px solid var(--ink)}
th,td{padding:.28rem .7rem;text-align:left;vertical-align:top;max-width:34rem;
overflow-wrap:anywhere}
th{border-bottom:1px solid var(--ink);font-weight:600;white-space:nowrap}
tbody th{border-bottom:0}
td.n,th.n{text-align:right;white-space:nowrap}
.claims td.n .soft{white-space:normal;max-width:9rem;margin-left:auto}
.rows td,.rows th{white-space:nowrap;max-width:none}
.claims th{white-space:normal;overflow-wrap:normal;vertical-align:bottom}
.claims td:first-child{min-width:15rem}
.claims th,.claims td{padding-left:.4rem;padding-right:.4rem}
td .soft{font-size:inherit;font-weight:400}
.claims .why td{border-top:0;padding-top:0;max-width:none}
.claims .topic th{text-align:left;padding-top:1.1rem;border-bottom:1px solid var(--rule);
max-width:none}
.claims .topic .soft{font-weight:400;font-size:inherit}
tbody tr+tr td,tbody tr+tr th{border-top:1px solid var(--grid)}
tr.best td{font-weight:600}
.verdict{font-weight:700;white-space:nowrap}
.supported{color:var(--good)}.refuted{color:var(--bad)}.equivalent{color:var(--even)}
.none{color:var(--none)}
.facts{display:flex;flex-wrap:wrap;gap:.6rem 2.2rem;margin:.8rem 0 1rem;padding:0}
.facts div{min-width:5rem}.facts dt{color:var(--soft);font-size:.85rem}
.facts dd{margin:0;font-size:1.3rem;font-weight:600;font-variant-numeric:tabular-nums}
details{margin:.3rem 0 .8rem}summary{cursor:pointer;color:var(--link);font-size:.92rem}
code{font:.85em/1.5 'DejaVu Sans Mono',Consolas,Menlo,monospace;overflow-wrap:anywhere}
.tools{display:flex;flex-wrap:wrap;gap:.5rem 1rem;align-items:center;margin:.5rem 0;
font-size:.92rem}
input,button{font:inherit;color:inherit;background:var(--box);border:1px solid var(--soft);
border-radius:3px;padding:.15rem .5rem}
input[type=search]{min-width:16rem}
th button{background:none;border:0;padding:0;font-weight:600;cursor:pointer}
th button:hover{text-decoration:underline}
button:disabled{opacity:.45}
:focus-visible{outline:3px solid var(--link);outline-offset:2px}
footer{max-width:68rem;margin:3rem auto 2rem;padding:0 1.5rem;color:var(--soft);font-size:.88rem}
@media (prefers-reduced-motion:reduce){*{transition:none!important;scroll-behavior:auto!important}}
@media print{:root{--paper:#fff;--ink:#000;--soft:#333;--rule:#999;--grid:#ccc;--box:#fff;
--link:#000;
--good:#00664b;--bad:#a33f00;--even:#6b4a00;--none:#333}
nav,.tools,.modebar-container{display:none!important}body{font-size:10.5pt}
figure,tr,.facts{break-inside:avoid}h2,h3,figcaption{break-after:avoid}
main,header,footer{max-width:none}}
"""
