#pragma once

/// What does not change in report.html: its looks (light and dark) and the few lines of script that
/// show values under the pointer.
namespace temper::trainer {

inline constexpr const char* kReportStyle = R"css(
:root {
  color-scheme: light dark;
  --page: #f7f7f5; --card: #ffffff; --ink: #1f2328; --soft: #6a707a; --line: #e4e5e1;
  --c0: #1f6fd1; --c1: #d8572a; --c2: #2a8f5b; --c3: #8a4fc4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15171a; --card: #1d2024; --ink: #e6e8eb; --soft: #969da8; --line: #30343a;
    --c0: #62a5f5; --c1: #f58a61; --c2: #5cc492; --c3: #ba8cf0;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1360px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 12px; }
.soft { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 20px; }
.tile, figure, details, .sample { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 12px 16px; }
.tile b { display: block; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 14px; }
figure { margin: 0; padding: 12px 14px 8px; position: relative; min-width: 0; }
figcaption { font-weight: 600; font-size: 14px; display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: baseline; }
.key { font-weight: 400; font-size: 13px; color: var(--soft); }
.key i { display: inline-block; width: 14px; height: 3px; border-radius: 2px; margin-right: 6px; vertical-align: middle; }
svg { display: block; width: 100%; height: auto; touch-action: pan-y; }
svg text { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
svg path { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.grid { stroke: var(--line); }
.cursor { stroke: var(--soft); stroke-dasharray: 3 3; visibility: hidden; }
path.s0 { stroke: var(--c0); } circle.s0 { fill: var(--c0); } .b0 { background: var(--c0); }
path.s1 { stroke: var(--c1); } circle.s1 { fill: var(--c1); } .b1 { background: var(--c1); }
path.s2 { stroke: var(--c2); } circle.s2 { fill: var(--c2); } .b2 { background: var(--c2); }
path.s3 { stroke: var(--c3); } circle.s3 { fill: var(--c3); } .b3 { background: var(--c3); }
.value { position: absolute; right: 14px; top: 12px; font-size: 13px; font-variant-numeric: tabular-nums;
  background: var(--card); padding-left: 10px; }
.sample { padding: 12px 16px; margin-bottom: 10px; }
.sample pre { margin: 2px 0 10px; }
.sample h3 { font-size: 12px; font-weight: 600; color: var(--soft); margin: 0; }
details { padding: 10px 16px; margin-top: 12px; }
summary { cursor: pointer; font-weight: 600; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.5 ui-monospace, monospace; margin: 10px 0 4px; }
)css";

inline constexpr const char* kReportScript = R"js(
for (const svg of document.querySelectorAll("svg[data-points]")) {
  const series = JSON.parse(svg.dataset.points), [x0, x1] = svg.dataset.area.split(" ").map(Number);
  const [left, right, width] = [62, 14, 640], cursor = svg.querySelector(".cursor");
  const value = svg.parentNode.appendChild(document.createElement("div"));
  const show = number => number === null ? "not finite" : Number(number.toPrecision(5)).toString();
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect();
    const at = x0 + ((event.clientX - box.left) / box.width * width - left) / (width - left - right) * (x1 - x0);
    const near = points => points.reduce((a, b) => Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a);
    const found = series.filter(points => points.length).map(near);
    const x = left + (found[0][0] - x0) / (x1 - x0) * (width - left - right);
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.style.visibility = "visible";
    value.className = "value";
    value.textContent = found.map(([step, number]) => `step ${step}: ${show(number)}`).join("   ");
  });
  svg.addEventListener("pointerleave", () => {
    cursor.style.visibility = "hidden";
    value.className = "";
    value.textContent = "";
  });
}
)js";

}  // namespace temper::trainer
