"""The page: one HTML file that holds everything and asks the network for nothing.

Its content security policy allows only the three scripts that are in it, by their hashes, so that
even a name that slipped through as markup could not run, and no request can leave the page.
"""

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.io as pio
from plotly.offline import get_plotlyjs

from mmrec.reports.exhibit import Exhibit
from mmrec.reports.markup import esc, facts, html_table, inert, row_table
from mmrec.reports.numbers import Numbers
from mmrec.reports.script import DRAW, TABLE
from mmrec.reports.style import CSS
from mmrec.stats import Verdict
from mmrec.study import text
from mmrec.study.tables import StudyTables
from mmrec.study.verdicts import Judged, by_topic, count_in_words, detectable, effect, level

LONG_ANSWER = 250
"""Letters beyond which the answer is set smaller."""
FEW_ROWS = 40
"""A table of no more rows is open where there is no figure."""
_SECTIONS = (
    ("claims", "Claims"),
    ("figures", "Figures"),
    ("cells", "Cells"),
    ("trials", "Trials"),
    ("cost", "Cost"),
    ("provenance", "Provenance"),
    ("reproduce", "Reproduce"),
)


def page(tables: StudyTables, numbers: Numbers) -> str:
    """The whole HTML document."""
    title = f"{tables.run['study']} on {tables.run['dataset']['name']}"
    body = "\n".join(
        [
            _header(tables, numbers),
            "<main>",
            claims_section(tables.claims),
            _completeness(numbers),
            *figures_section(numbers.exhibits),
            _published(numbers.published),
            _cells(numbers),
            _trials(numbers.trials),
            _cost(numbers),
            provenance_section(numbers.provenance, numbers.flags),
            _reproduce(numbers),
            "</main>",
            footer(tables.run),
        ]
    )
    return document(title, body)


def document(title: str, body: str) -> str:
    """The HTML document around a body, with everything that its figures and tables need."""
    scripts = [get_plotlyjs(), DRAW, TABLE]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{esc(title)}</title><style>{CSS}</style></head>\n<body>\n{body}\n"
        + "\n".join(f"<script>{script}</script>" for script in scripts)
        + "\n</body></html>\n"
    )


def _policy(scripts: list[str]) -> str:
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline';"
        " img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _header(tables: StudyTables, numbers: Numbers) -> str:
    about = f"{tables.run['study']} · {tables.run['dataset']['name']} · {tables.run['kind']}"
    return header(about, tables.run, numbers.answer, _SECTIONS)


def header(
    about: str, run: Mapping[str, Any], answer: str, sections: Iterable[tuple[str, str]]
) -> str:
    """The top of the page: the question and its answer, and links to (id, name) of sections."""
    smoke = '<p class="banner">smoke: no verdicts meant</p>' if run["smoke"] else ""
    long = " long" if len(answer) > LONG_ANSWER else ""
    links = [f'<a href="#{key}">{name}</a>' for key, name in sections]
    return (
        f'<header><p class="kicker">{esc(about)}</p><h1>{esc(run["question"])}</h1>'
        f'<p class="answer{long}">{esc(answer).replace(" %", "&nbsp;%")}</p>{smoke}'
        f'<nav aria-label="Sections">{" ".join(links)}</nav></header>'
    )


def claims_section(claims: Sequence[Judged], *, users: bool = True) -> str:
    """The claims with their verdicts, by topic; `users`: whether there are any to speak of."""
    if not claims:
        return '<section id="claims"><h2>Claims</h2><p>The study tests no claim.</p></section>'
    heads = ["Claim and source", "Verdict", "Effect", "Interval", "Seeds", "p, corrected"]
    heads += ["Interval over users (95 %)"] * users
    rows = "".join(_topic(topic, found, users) for topic, found in by_topic(claims).items())
    titles = "".join(f'<th scope="col">{head}</th>' for head in heads)
    note = (
        "Seeds are the replicates. Intervals and p are corrected for the number of claims (Holm);"
        " an interval's level is what the correction leaves to its claim."
    )
    note += (
        " The interval over users speaks of these trained models only and decides nothing." * users
    )
    return (
        '<section id="claims"><h2>Claims and verdicts</h2><div class="scroll claims" tabindex="0">'
        "<table>"
        f"<thead><tr>{titles}</tr></thead>"
        f'<tbody>{rows}</tbody></table></div><p class="soft">{note}</p></section>'
    )


def _topic(topic: str, found: list[Judged], users: bool) -> str:
    """The claims of a topic under its name and their count; those without a topic as they are.

    A source that all of them share stands under the topic's name only.
    """
    sources = {stated.source for stated, _ in found}
    if not topic:
        return "".join(_claim(claim.text, claim.source, v, users) for claim, v in found)
    shared = "".join(sources) if len(sources) == 1 else ""
    head = f'{esc(topic)} <span class="soft">{esc(count_in_words(found))}</span>'
    head += f'<div class="soft">{esc(shared)}</div>' if shared else ""
    rows = [_claim(claim.text, "" if shared else claim.source, v, users) for claim, v in found]
    return f'<tr class="topic"><th colspan="7" scope="rowgroup">{head}</th></tr>{"".join(rows)}'


def _claim(words: str, source: str, v: Verdict, users: bool) -> str:
    known = v.verdict if v.verdict in ("supported", "refuted", "equivalent") else "none"
    mark = {"supported": "✓", "refuted": "✗", "equivalent": "=", "none": "?"}[known]
    unit = f" {esc(text.metric(v.unit))}" if v.unit else ""
    seen = detectable(v)
    least = f'<div class="soft">could have seen {seen}</div>' if seen else ""
    why = f'<tr class="why"><td colspan="7" class="soft">{esc(v.detail)}</td></tr>'
    said_by = f"<div class='soft'>{esc(source)}</div>" if source else ""
    size = "" if math.isnan(v.relative) else f"{text.percent(v.relative)}"
    between = text.DASH
    if not math.isnan(v.low):
        between = f"{effect(v, v.low)} to {effect(v, v.high)}"
        between += f'<div class="soft">{level(v)}</div>'
    cells = [
        f"<td>{esc(words)}{said_by}</td>",
        f'<td class="verdict {known}">{mark} {esc(v.verdict)}{least}</td>',
        f'<td class="n">{effect(v, v.effect)}<div class="soft">{unit}</div>'
        f'<div class="soft">{size}</div></td>',
        f'<td class="n">{between}</td>',
        f'<td class="n">{v.n}</td>',
        f'<td class="n">{text.p_value(v.p_corrected)}</td>',
    ]
    over_users = text.interval(v.user_low, v.user_high, text.signed)
    cells += [f'<td class="n">{over_users}</td>'] * users
    return f"<tr>{''.join(cells)}</tr>{why if v.detail else ''}"


def _completeness(numbers: Numbers) -> str:
    have = numbers.completeness
    holes = numbers.cells.loc[numbers.cells["n"] == 0, ["label", "reason"]]
    listed = ""
    if len(holes):
        shown = html_table(holes, ["cell", "why it has no test score"])
        listed = (
            f"<details><summary>{text.count(len(holes), 'cell')} without a test score</summary>"
        )
        listed += f"{shown}</details>"
    return (
        '<section id="completeness"><h2>Is it complete?</h2>'
        + facts((name, f"{n:,}") for name, n in have.items())
        + '<p class="soft">Trials. Stopped ones have no test score by design.</p>'
        + f"{listed}</section>"
    )


def figures_section(exhibits: Iterable[Exhibit]) -> list[str]:
    """The exhibits under their heading."""
    head = '<section id="figures"><h2>What the numbers show</h2>'
    return [head, *(_exhibit(exhibit) for exhibit in exhibits), "</section>"]


def _exhibit(exhibit: Exhibit) -> str:
    name = f"fig-{exhibit.key}"
    drawn = ""
    if exhibit.figure is not None:
        label = f'role="img" aria-label="{esc(exhibit.title)}; the table below has its numbers"'
        height = exhibit.figure.to_dict()["layout"]["height"]
        drawn = f'<div class="plot" id="{name}" style="min-height:{height}px" {label}></div>'
        drawn += inert(pio.to_json(exhibit.figure, validate=False) or "", name)
    listed = ""
    if len(exhibit.table):
        unfolded = " open" if exhibit.figure is None and len(exhibit.table) <= FEW_ROWS else ""
        listed = (
            f"<details{unfolded}><summary>Numbers ({text.count(len(exhibit.table), 'row')},"
            f" tables/{exhibit.key}.csv)</summary>{html_table(exhibit.table)}</details>"
        )
    return (
        f'<figure role="group" aria-labelledby="{name}-title"><figcaption><b id="{name}-title">'
        f"{esc(exhibit.title)}</b>{esc(exhibit.finding)}</figcaption>{drawn}{listed}</figure>"
    )


def _published(table: pd.DataFrame) -> str:
    if table.empty:
        return ""
    return (
        '<section id="published"><h2>Published numbers beside ours</h2><p>Same dataset and same'
        f" protocol only; ours is the best cell by validation.</p>{html_table(table)}</section>"
    )


def _cells(numbers: Numbers) -> str:
    first = ["label", "best", "n", "valid", "test", "test_low", "test_high"]
    shown = _first(numbers.cells.drop(columns=["cell", "test_half"]), first)
    return (
        '<section id="cells"><h2>Every cell</h2><p>Means over seeds. A column sorts when its'
        " heading is pressed; the filter takes words, all of which must occur in a row,"
        " such as <code>phase:grid</code>.</p>"
        + row_table("cell-table", shown, "words, or column:value")
        + '<noscript><p>In tables/cells.csv.</p></noscript><p class="soft">In'
        " tables/cells.csv too.</p></section>"
    )


def _trials(table: pd.DataFrame) -> str:
    hidden = ["config", "started", "ended", "cell", "torch", "hardware", "cpus", "gpus"]
    scored = [str(name) for name in table if str(name).startswith(("valid.", "test."))]
    scores = [name for name in scored if ":" not in name]
    strata = [name for name in scored if ":" in name]
    shown = table.drop(columns=[name for name in (*hidden, *strata) if name in table])
    shown = _first(shown, ["hash", "label", "seed", "state", "best_epoch", *scores])
    return (
        '<section id="trials"><h2>Every trial</h2>'
        + row_table("trial-table", shown, "words, or state:failed")
        + '<noscript><p>In tables/trials.csv.</p></noscript><p class="soft">With configurations,'
        " times and strata in tables/trials.csv.</p></section>"
    )


def _first(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """The named columns before the others."""
    return table[[*names, *(name for name in table if name not in names)]]


def _cost(numbers: Numbers) -> str:
    total = numbers.totals
    pairs = [
        ("total trial time", text.duration(total["total"])),
        ("median trial", text.duration(total["median"])),
        ("wall time with a trial running", text.duration(total["busy"])),
        ("trials at a time", text.number(total["parallelism"], 2)),
        ("saved by stopping", text.duration(total["saved"])),
        ("lost in trials without result", text.duration(total["lost"])),
    ]
    shown = numbers.by_state.assign(
        median=numbers.by_state["median"].map(text.duration),
        total=numbers.by_state["total"].map(text.duration),
        share=[f"{100 * share:.0f} %" for share in numbers.by_state["share"]],
    )
    return (
        f'<section id="cost"><h2>What it cost</h2>{facts(pairs)}{html_table(shown)}'
        '<p class="soft">Saved: what the stopped trials would have cost at the median number of'
        " epochs of the finished ones.</p></section>"
    )


def provenance_section(facts: pd.DataFrame, notes: Sequence[str]) -> str:
    """Where the numbers come from, and what a reader should know before trusting them."""
    said = "".join(f"<li>{esc(note)}</li>" for note in notes)
    flags = f"<h3>To be aware of</h3><ul>{said}</ul>" if said else "<p>Nothing to be flagged.</p>"
    return (
        '<section id="provenance"><h2>Where the numbers come from</h2>'
        f"{html_table(facts)}{flags}</section>"
    )


def _reproduce(numbers: Numbers) -> str:
    shown = numbers.reproduce
    return (
        '<section id="reproduce"><h2>Repeat a cell</h2><p>Trains the cell\'s first seed again and'
        " compares; any trial's hash will do.</p><details><summary>"
        f"{text.count(len(shown), 'command')}</summary>{html_table(shown)}</details></section>"
    )


def footer(run: Mapping[str, Any]) -> str:
    """What made the page, and when the run began."""
    version = run["versions"].get("mmrec", "")
    return (
        f"<footer>Made by mmrec {esc(version)} from the run's tables alone; run of"
        f" {esc(run['created'])}. The same numbers are in tables/*.csv and"
        " results.json.</footer>"
    )
