"""The page's own script: draws the figures in the reader's colours and works the long tables.

All data come as inert JSON and reach the page as text nodes, never as markup.
"""

DRAW = """
(function(){
'use strict';
var dark=matchMedia('(prefers-color-scheme: dark)'),paper=matchMedia('print');
function colour(name){
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();}
function theme(layout){
  var out={'font.color':colour('--ink'),'hoverlabel.bgcolor':colour('--box'),
           'hoverlabel.font.color':colour('--ink'),'hoverlabel.bordercolor':colour('--soft')};
  Object.keys(layout).filter(function(k){return /^[xy]axis[0-9]*$/.test(k);}).forEach(function(k){
    out[k+'.gridcolor']=colour('--grid');out[k+'.linecolor']=colour('--soft');
    out[k+'.tickcolor']=colour('--soft');});
  return out;
}
var plots=Array.prototype.slice.call(document.querySelectorAll('.plot'));
plots.forEach(function(div){
  var spec=JSON.parse(document.getElementById(div.id+'-data').textContent);
  Plotly.newPlot(div,spec.data,spec.layout,{responsive:true,displaylogo:false,displayModeBar:'hover',
    modeBarButtonsToRemove:['select2d','lasso2d','autoScale2d']}).then(function(){
    Plotly.relayout(div,theme(spec.layout));});
});
function repaint(){plots.forEach(function(div){Plotly.relayout(div,theme(div.layout));});}
dark.addEventListener('change',repaint);paper.addEventListener('change',repaint);
})();
"""

TABLE = """
(function(){
'use strict';
var PAGE=50;
function make(tag,text){
  var e=document.createElement(tag);if(text!==undefined)e.textContent=text;return e;}
function shown(value,score){
  if(value===null||value===undefined)return '\\u2013';
  if(typeof value==='boolean')return value?'yes':'';
  if(typeof value!=='number')return String(value);
  if(score)return value.toFixed(4);
  return Number.isInteger(value)?String(value):String(parseFloat(value.toPrecision(4)));
}
function work(box){
  var data=JSON.parse(document.getElementById(box.id+'-data').textContent);
  var names=data.columns,cols=data.values,size=data.size,numeric=data.numeric;
  var order=[],at=0,by=-1,up=true,words=[],r,c;
  for(r=0;r<size;r++)order.push(r);
  var filter=box.querySelector('input'),count=box.querySelector('output');
  var back=box.querySelectorAll('button')[0],next=box.querySelectorAll('button')[1];
  var table=make('table'),head=table.createTHead().insertRow(),body=table.createTBody();
  table.appendChild(make('caption')).hidden=true;
  names.forEach(function(name,i){
    var th=make('th'),button=make('button',name);th.scope='col';if(numeric[i])th.className='n';
    th.setAttribute('aria-sort','none');button.type='button';
    button.addEventListener('click',function(){up=by===i?!up:true;by=i;at=0;sort();draw();});
    th.appendChild(button);head.appendChild(th);});
  box.querySelector('.scroll').appendChild(table);
  function line(r){
    if(words[r]===undefined){
      words[r]=names.map(function(name,c){
        return name+':'+shown(cols[c][r],data.score[c]);}).join(' ').toLowerCase();}
    return words[r];}
  function sort(){
    if(by<0)return;
    var col=cols[by],sign=up?1:-1;
    order.sort(function(a,b){
      var x=col[a],y=col[b];
      if(x===null||y===null)return x===y?a-b:(x===null?1:-1);
      if(x===y)return a-b;
      var order=typeof x==='number'&&typeof y==='number';
      return (order?x-y:String(x).localeCompare(String(y)))*sign;});
    Array.prototype.forEach.call(head.cells,function(th,i){
      th.setAttribute('aria-sort',i===by?(up?'ascending':'descending'):'none');});}
  function draw(){
    var asked=filter.value.toLowerCase().split(/\\s+/).filter(Boolean);
    var rows=asked.length?order.filter(function(r){
      return asked.every(function(w){return line(r).indexOf(w)>=0;});}):order;
    if(at>=rows.length)at=0;
    var part=rows.slice(at,at+PAGE),fresh=make('tbody');
    part.forEach(function(r){
      var tr=fresh.insertRow();
      for(c=0;c<names.length;c++){
        var td=tr.insertCell();td.textContent=shown(cols[c][r],data.score[c]);
        if(numeric[c])td.className='n';}});
    table.replaceChild(fresh,body);body=fresh;
    count.textContent=rows.length?(at+1)+' to '+(at+part.length)+' of '+rows.length:'none';
    back.disabled=at===0;next.disabled=at+PAGE>=rows.length;}
  filter.addEventListener('input',function(){at=0;draw();});
  back.addEventListener('click',function(){at=Math.max(0,at-PAGE);draw();});
  next.addEventListener('click',function(){at+=PAGE;draw();});
  draw();
}
Array.prototype.forEach.call(document.querySelectorAll('.rows'),work);
})();
"""
