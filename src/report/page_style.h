#pragma once

namespace bitnet {

// Colours, and what drawings are made of.
inline constexpr const char* kPlotStyle = R"css(
:root { color-scheme: light dark; --page: #f6f6f4; --card: #ffffff; --edge: #e3e2de; --text: #1d1d1b; --soft: #6a6964;
  --grid: #ebeae6; --line-1: #2563c9; --line-2: #c8521a; --line-3: #2f8a4d; --bad: #c62828; }
@media (prefers-color-scheme: dark) {
  :root { --page: #131416; --card: #1c1e21; --edge: #2d3034; --text: #ebebe8; --soft: #9d9c97;
    --grid: #292c30; --line-1: #78aaff; --line-2: #ff9a62; --line-3: #74cf92; --bad: #ff7b72; }
}
svg { display: block; width: 100%; height: auto; font: 11.5px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.grid { stroke: var(--grid); } .axis { stroke: var(--soft); stroke-opacity: .6; }
.tick { fill: var(--soft); } .value { font-weight: 600; } .broken { fill: var(--bad); font-weight: 700; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .band { opacity: .18; }
.row { fill: var(--text); } .reach { stroke-width: 1.4; } .sure { opacity: .3; } .mark { stroke: var(--line-2); stroke-width: 2; }
)css";

// The rest of a page.
inline constexpr const char* kPageStyle = R"css(
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 34px 0 12px; }
p { margin: 6px 0 12px; max-width: 72ch; }
.soft, figcaption span { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 20px 0 14px; }
.tile, figure, .sample, .card, details { background: var(--card); border: 1px solid var(--edge); border-radius: 10px; }
.tile { padding: 12px 16px; }
.tile b { display: block; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; line-height: 1.3; }
.tile small { color: var(--soft); display: block; }
.charts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 14px; align-items: start; }
.charts .wide { grid-column: 1 / -1; }
.charts.small { grid-template-columns: repeat(3, minmax(0, 1fr)); }
@media (max-width: 1000px) { .charts.small { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
@media (max-width: 760px) { .charts, .charts.small { grid-template-columns: minmax(0, 1fr); } }
.charts.flow { display: block; columns: 3 300px; column-gap: 14px; }
figure { margin: 0; padding: 14px 16px 8px; }
figcaption { font-size: 14px; margin-bottom: 6px; }
.flow figure { break-inside: avoid; margin-bottom: 14px; }
.key { margin-left: 14px; white-space: nowrap; } .key i { display: inline-block; width: 14px; height: 3px;
  border-radius: 2px; margin-right: 6px; vertical-align: middle; }
.ramp { display: inline-block; width: 90px; height: 6px; border-radius: 3px; margin: 0 6px; vertical-align: middle; }
.sample { padding: 12px 16px; margin-bottom: 10px; }
.sample p { margin: 4px 0 0; white-space: pre-wrap; overflow-wrap: anywhere; font-family: Georgia, "Times New Roman", serif; }
.card { padding: 8px 16px; margin: 12px 0; overflow-x: auto; width: fit-content; max-width: 100%; }
details { padding: 10px 16px; margin-top: 14px; overflow-x: auto; } summary { cursor: pointer; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 8px 0; font-size: 14px; }
th, td { text-align: right; padding: 3px 18px 3px 0; border-bottom: 1px solid var(--edge); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; } tr:last-child td { border-bottom: 0; }
td.word, th.word { text-align: left; } td.text { text-align: left; white-space: normal; overflow-wrap: anywhere; }
pre { overflow-x: auto; font-size: 13px; }
)css";

}  // namespace bitnet
