"use strict";
// What both pages' charts share. Colours come from the style sheet, so that light and dark agree.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const NB = "\u00a0";

// Colour-blind safe (Okabe and Ito 2008, without yellow and black); shapes tell more than seven apart.
const HUES = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8a8f94"];
const SHAPES = ["circle", "square", "diamond", "triangle-up", "pentagon"];
const hue = (i) => HUES[i % HUES.length];
const shape = (i) => SHAPES[Math.floor(i / HUES.length) % SHAPES.length];

const narrow = () => window.innerWidth <= 560;
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const percent = (x, digits = 2) => (100 * x).toFixed(digits) + NB + "%";
const signed = (x) => (x < 0 ? "−" : "+") + Math.abs(100 * x).toFixed(2);
const whole = (n) => n.toLocaleString("en");
const number = (x) => x.toLocaleString("en", { maximumSignificantDigits: 4 });

// Plotly reads labels as a small HTML: names must not.
const safe = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const elide = (text, most) => {
  if (text.length <= most) return text;
  const tail = Math.ceil((most - 1) * 0.6);
  return text.slice(0, most - 1 - tail) + "…" + text.slice(-tail);
};

function layout(extra) {
  const axis = (more) => ({
    gridcolor: ink("line"), linecolor: ink("line"), zerolinecolor: ink("line"), zeroline: false,
    tickfont: { size: 12, color: ink("muted") }, fixedrange: true, automargin: true, ...more,
    title: { font: { size: 13, color: ink("muted") }, standoff: 10, ...(more.title || {}) },
  });
  const { margin = {}, ...rest } = { xaxis: {}, yaxis: {}, ...extra };
  for (const key of Object.keys(rest)) if (/^[xy]axis\d*$/.test(key)) rest[key] = axis(rest[key]);
  return {
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: ink("ink") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    hoverlabel: { bgcolor: ink("panel"), bordercolor: ink("line"), font: { color: ink("ink"), size: 13 }, align: "left" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: ink("muted"), activecolor: ink("kept") },
    showlegend: false, dragmode: false, hovermode: "closest",
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 13 } },
    ...rest, margin: { l: 8, r: 12, t: 16, b: 40, ...margin },
  };
}

const drawings = [];
function react(id, traces, extra, config = {}) {
  const chart = byId(id);
  chart.style.height = (extra.height || 320) + "px";
  return Plotly.react(chart, traces, layout(extra), { displayModeBar: false, responsive: true, displaylogo: false, ...config });
}
// A drawing is a function without arguments; it is repeated when the colours or the width class change.
function drawing(draw) { drawings.push(draw); draw(); }
const redraw = () => drawings.forEach((draw) => draw());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
matchMedia("(max-width: 560px)").addEventListener("change", redraw);

function element(tag, text, kind) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

// heads: [text, class]; rows: lists of text.
function table(heads, rows) {
  const made = element("table"), head = made.createTHead().insertRow(), body = made.createTBody();
  for (const [text, kind] of heads) { const th = element("th", text, kind); th.scope = "col"; head.append(th); }
  for (const row of rows) {
    const tr = body.insertRow();
    row.forEach((text, i) => tr.append(element("td", text, heads[i][1])));
  }
  const frame = element("div", undefined, "scroll");
  frame.append(made);
  return frame;
}

// One of several buttons is pressed; `choose` hears its value.
function toggle(id, choose) {
  const buttons = [...byId(id).querySelectorAll("button")];
  for (const button of buttons) button.addEventListener("click", () => {
    for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    choose(button.value);
  });
}
