"""How the page looks: colours that follow the reader's light or dark setting, and the layout.

The colours of the curves are those of Okabe and Ito, which readers of all kinds of colour vision
can tell apart, darkened or lightened until each has a contrast of 3:1 or more with the paper.
"""

# Colours that the drawings use, and the CSS variable that takes their place in the page.
INK, GRID = "#0a0b0c", "#0a0b0d"
SERIES = ("#0a0b10", "#0a0b11", "#0a0b12", "#0a0b13", "#0a0b14")
VARIABLES = {INK: "currentColor", GRID: "var(--rule)"} | {
    color: f"var(--s{number})" for number, color in enumerate(SERIES)
}

CSS = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f5f6f8; --ink: #1b1f24; --soft: #57606a; --rule: #d0d7de;
  --link: #0a58a8; --s0: #0072b2; --s1: #c04f00; --s2: #007a59; --s3: #a4437c; --s4: #6b6f76;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171c; --panel: #1d2128; --ink: #e8eaed; --soft: #a6adb8; --rule: #3a414c;
    --link: #7cc0f5; --s0: #56b4e9; --s1: #f09a50; --s2: #2fc79c; --s3: #e09cc6; --s4: #a3a8b0;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
header, main, footer { max-width: 76rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 1.5rem; }
footer { padding-bottom: 3rem; color: var(--soft); font-size: .9rem; }
section { margin: 2.5rem 0 0; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; margin: 0 0 .6rem; padding-bottom: .25rem;
     border-bottom: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
p { max-width: 46rem; margin: .5rem 0; overflow-wrap: anywhere; }
a { color: var(--link); }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; list-style: none; padding: 0;
         margin: 1rem 0 0; }
.numbers { display: grid; gap: .75rem; margin: 1.25rem 0 0;
           grid-template-columns: repeat(auto-fit, minmax(min(100%, 13rem), 1fr)); }
.numbers div, .class { background: var(--panel); border-radius: .5rem; padding: .75rem .9rem; }
.numbers dt { color: var(--soft); font-size: .9rem; }
.numbers dd { margin: 0; font-size: 1.6rem; font-weight: 600; line-height: 1.3; }
.numbers dd small { font-size: .9rem; font-weight: 400; color: var(--soft); }
.charts { display: grid; gap: 1.25rem 2rem; align-items: start;
          grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); }
figure { margin: .5rem 0; min-width: 0; }
svg.chart { display: block; width: 100%; height: auto; max-width: 36rem; color: var(--ink); }
svg.chart * { stroke-linejoin: round; stroke-linecap: butt; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--rule); text-align: right;
         vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td, thead th + th { white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 400; min-width: 8.5rem; max-width: 22rem; overflow-wrap: anywhere; }
tr.chosen th, tr.chosen td { font-weight: 700; }
table.settings td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.settings th { text-align: left; }
table.settings tbody th { min-width: 11.5rem; }
details { margin: .6rem 0; }
summary { cursor: pointer; color: var(--link); }
pre { background: var(--panel); border-radius: .5rem; padding: .75rem .9rem; font-size: .85rem;
      overflow-x: auto; }
pre.wrap { white-space: pre-wrap; overflow-wrap: anywhere; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .9em; }
.classes { display: grid; gap: .75rem;
           grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.pairs { display: flex; flex-wrap: wrap; gap: .9rem 1.1rem; list-style: none; margin: 0;
         padding: 0; }
.pair { display: grid; grid-template-columns: repeat(2, 4rem); gap: .25rem; }
.pair img { width: 4rem; height: auto; image-rendering: pixelated; display: block;
            border-radius: 2px; }
.pair img:only-of-type { grid-column: 1 / -1; width: 8.25rem; }
.pair ol { grid-column: 1 / -1; list-style: none; margin: .1rem 0 0; padding: 0;
           font-size: .75rem; line-height: 1.35; }
.pair li { display: grid; grid-template-columns: 3.2rem 1fr 1.9rem; gap: .25rem;
           align-items: center; }
.pair .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.pair .bar { background: var(--rule); height: .5rem; border-radius: 2px; }
.pair .bar i { display: block; height: 100%; background: var(--s0); border-radius: 2px; }
.pair .own .name { font-weight: 700; }
.pair .own i { background: var(--s1); }
.pair .share { text-align: right; font-variant-numeric: tabular-nums; }
@media print { details > * { display: block; } .class, figure { break-inside: avoid; } }
"""
