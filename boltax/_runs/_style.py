"""How the page of runs looks, and the few lines that hide a run's curves."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d3b", "#7f7f7f")
"""Colours that people with any colour vision tell apart (Okabe and Ito 2008), and two more."""

STYLE = """
:root{color-scheme:light dark;--ink:#1d2126;--quiet:#69727d;--paper:#fff;--card:#f6f7f9;
--edge:#dfe3e8}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--quiet:#98a2ad;--paper:#14171a;
--card:#1d2125;--edge:#343a40}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1180px;margin:0 auto;padding:20px 16px 48px}
h1{font-size:1.5rem;margin:0;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:32px 0 10px}
h3{font-size:1rem;margin:16px 0 6px;overflow-wrap:anywhere}
p{margin:4px 0}
.quiet,small{color:var(--quiet);font-size:.85rem}
i{display:inline-block;width:.8em;height:.8em;border-radius:50%;background:var(--own);
margin-right:.45em}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;margin:0 0 10px;font-size:.9rem}
.legend label{cursor:pointer;overflow-wrap:anywhere}
.legend input{accent-color:var(--own);margin:0 .4em 0 0;vertical-align:-1px}
.wide{overflow-x:auto;border:1px solid var(--edge);border-radius:8px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.9rem}
th,td{padding:6px 10px;text-align:left;white-space:nowrap;border-top:1px solid var(--edge)}
tr:first-child>*{border-top:0;background:var(--card);color:var(--quiet);font-weight:600}
tr>:first-child{position:sticky;left:0;background:var(--paper);max-width:46vw;min-width:7em;
white-space:normal;overflow-wrap:anywhere}
tr:first-child>:first-child{background:var(--card)}
.state{padding:1px 8px;border-radius:9px;background:var(--card);border:1px solid var(--edge)}
.finished{color:#0a7d4f}.running{color:#0072b2}.failed{color:#c43d1f}.interrupted{color:#b06f00}
@media(prefers-color-scheme:dark){.finished{color:#4cc38a}.running{color:#6db9ee}
.failed{color:#ff8a6b}.interrupted{color:#f0b45b}}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,360px),1fr));gap:14px}
figure{margin:0;background:var(--card);border:1px solid var(--edge);border-radius:8px;
padding:10px 10px 4px;min-width:0}
figcaption{font-weight:600;font-size:.9rem;overflow-wrap:anywhere}
svg{width:100%;height:auto;display:block}
svg text{fill:var(--quiet);font-size:13px}
@media(max-width:600px){svg text{font-size:17px}}
svg .left{text-anchor:end;dominant-baseline:middle}
svg .below{text-anchor:middle}
svg .grid{stroke:var(--edge)}
svg path{fill:none;stroke:var(--own);stroke-width:2;stroke-linejoin:round}
svg circle{fill:var(--own)}
svg .train path{stroke-dasharray:6 4;stroke-width:1.6}
svg .fine path{stroke-width:1;opacity:.4}
svg g:hover path{stroke-width:3.5}
svg g.off{display:none}
details{border:1px solid var(--edge);border-radius:8px;margin-top:10px;padding:6px 10px}
details .wide{border:0;margin-top:6px}
summary{cursor:pointer;overflow-wrap:anywhere}
pre{overflow-x:auto;font-size:.75rem;line-height:1.3}
.time{margin:8px 0}.time span{font-size:.85rem;overflow-wrap:anywhere}
.time div{display:flex;height:16px;border-radius:5px;overflow:hidden;background:var(--card)}
.time b{display:block;height:100%}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,220px),1fr));gap:12px}
.pictures figure{padding:8px}
.pictures figcaption{font-weight:400;font-size:.85rem;margin-top:4px}
img{width:100%;image-rendering:pixelated;display:block;border-radius:4px}
@media print{.legend input{display:none}figure{break-inside:avoid}}
"""

SCRIPT = """
document.querySelectorAll('[data-run]').forEach(function(box){
  box.addEventListener('change',function(){
    document.querySelectorAll('svg .run'+box.dataset.run).forEach(function(curve){
      curve.classList.toggle('off',!box.checked);
    });
  });
});
"""
