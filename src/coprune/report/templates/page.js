"use strict";
// Draws the figures that stand on the page as JSON, chooses among them, and shows one group at a time.
const byId = (id) => document.getElementById(id);
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const narrow = matchMedia("(max-width: 560px)"), dark = matchMedia("(prefers-color-scheme: dark)");

// Figures name colours as the style sheet does, so that light and dark agree.
function read(name) {
  const text = [...document.scripts].find((script) => script.dataset.figure === name).textContent;
  return JSON.parse(text.replace(/var\(--(\w+)\)/g, (_, color) => ink(color)));
}

// A chart's figure is named after it and after what is pressed of the buttons that choose for it.
function draw(chart) {
  const pressed = document.querySelectorAll(`[data-chart="${chart.id}"] [aria-pressed="true"]`);
  const { data, layout } = read([chart.id, ...[...pressed].map((button) => button.value)].join("/"));
  layout.template = read("theme");
  if (narrow.matches) for (const [part, changes] of Object.entries(layout.meta || {})) Object.assign(layout[part], changes);
  chart.style.height = layout.height + "px";
  Plotly.react(chart, data, layout, { displayModeBar: false, responsive: true });
}

document.addEventListener("click", ({ target }) => {
  const frame = target.closest("[data-chart]");
  if (!frame || !target.matches("button")) return;
  for (const button of frame.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button === target));
  draw(byId(frame.dataset.chart));
});

function drawAll(within) {
  within.querySelectorAll(".chart").forEach(draw);
  if (within.querySelector("#predictions")) watchPredictions();
}
for (const query of [narrow, dark]) query.addEventListener("change", () => drawAll(document));

const group = byId("group");
function choose(at) {
  group.selectedIndex = at;
  byId("previous").disabled = at === 0;
  byId("next").disabled = at === group.length - 1;
  byId("details").replaceChildren(byId("group-" + at).content.cloneNode(true));
  drawAll(byId("details"));
}

// What kept units predict of one removed unit: the chosen one, or the one under the cursor.
function watchPredictions() {
  const chart = byId("predictions"), pick = byId("predicted"), [cells, bars] = chart.data;
  const part = (size, text, kind) => {
    const made = Object.assign(document.createElement("span"), { textContent: text, title: text, className: kind });
    made.style.flexGrow = size;
    return made;
  };
  const tell = (unit) => {
    const at = bars.x.indexOf(unit), found = [];
    cells.x.forEach((x, i) => { if (x === unit && cells.z[i]) found.push([cells.z[i], cells.y[i]]); });
    const others = bars.y[at] - found.reduce((sum, [size]) => sum + size, 0), lost = 100 - bars.y[at];
    const parts = found.map(([size, by]) => part(size, `${by}: ${size}\u00a0%`, "by"));
    if (others > 0.5) parts.push(part(others, `others: ${others.toFixed(0)}\u00a0%`, "others"));
    if (lost > 0.4) parts.push(part(lost, `lost: ${lost.toFixed(lost < 10 ? 1 : 0)}\u00a0%`, "lost"));
    byId("split").replaceChildren(...parts);
    byId("prediction").textContent = bars.hovertext[at].replace(/^./, (first) => first.toUpperCase()) + ".";
  };
  const pin = (unit) => {
    const at = bars.x.indexOf(pick.value = unit), line = { color: ink("accent"), width: 1.5 };
    tell(unit);
    const frame = { type: "rect", yref: "paper", x0: at - 0.5, x1: at + 0.5, y0: 0, y1: 1, line };
    Plotly.relayout(chart, { shapes: [chart.layout.shapes[0], frame] });
  };
  pick.onchange = () => pin(pick.value);
  chart.on("plotly_click", (event) => pin(event.points[0].x));
  chart.on("plotly_hover", (event) => tell(event.points[0].x));
  chart.on("plotly_unhover", () => tell(pick.value));
  pin(pick.value);
}

drawAll(document);
if (group) {
  group.addEventListener("change", () => choose(group.selectedIndex));
  byId("previous").addEventListener("click", () => choose(group.selectedIndex - 1));
  byId("next").addEventListener("click", () => choose(group.selectedIndex + 1));
  for (const chart of [byId("overview"), byId("heads-map")]) chart?.on("plotly_click", (event) => {
    choose(event.points[0].customdata);
    byId("one").scrollIntoView({ behavior: "smooth" });
  });
  choose(0);
}
