// Accuracy against MACs, or against heads where these were asked for, a line a method and recovery.
const methods = [...new Set(data.series.map((s) => s.method))];
const chosen = { stage: data.stages.length ? data.stages[data.stages.length - 1][0] : null, recovery: data.shown || "" };
const DASHES = ["dot", "dash", "solid", "dashdot"];

// The lines to draw. Before recovery a method's lines are one and the same: it is drawn once, without its recovery's name.
function lines() {
  const wanted = data.series.filter((s) => (!chosen.recovery || s.recovery === chosen.recovery) && s.points[chosen.stage].length);
  const seen = new Map();
  for (const s of wanted) {
    const key = s.method + "\n" + JSON.stringify(s.points[chosen.stage]), first = seen.get(key);
    seen.set(key, first || chosen.recovery ? { ...s, label: s.name, plain: true } : s);
  }
  return [...seen.values()];
}

function drawAccuracy() {
  const drawn = lines();
  const traces = drawn.map((s) => {
    const points = s.points[chosen.stage], i = methods.indexOf(s.method), colour = hue(i);
    return {
      type: "scatter", mode: "lines+markers", name: safe(s.label),
      x: points.map((p) => (data.heads ? p.kept : 100 * p.macs)), y: points.map((p) => 100 * p.mean),
      error_y: {
        type: "data", symmetric: false, thickness: 1.5, width: 4, color: colour,
        array: points.map((p) => 100 * (p.high - p.mean)), arrayminus: points.map((p) => 100 * (p.mean - p.low)),
      },
      line: { color: colour, width: 2, dash: s.plain || data.recoveries.length < 2 ? "solid" : DASHES[s.variant % DASHES.length] },
      marker: { color: colour, size: 9, symbol: SHAPES[i % SHAPES.length] },
      hovertext: points.map((p) => "<b>" + safe(s.label) + "</b><br>budget " + safe(p.budget) + ": " + (data.heads ? number(p.kept) + " heads, " : "") + percent(p.macs, 1) + " of the MACs<br>" +
        percent(p.mean) + (p.seeds > 1 ? " (" + percent(p.low) + " – " + percent(p.high) + ", " + p.seeds + " seeds)" : "")),
      hoverinfo: "text",
    };
  });
  byId("accuracy-caption").textContent = !drawn.length ? "With this recovery the step was not measured." : drawn.some((s) => !s.plain) && data.recoveries.length > 1 ? "The style of a line tells the recovery." : "";
  const rows = Math.ceil(traces.length / (narrow() ? 1 : 3));
  react("accuracy", traces, {
    height: 420 + 22 * rows, showlegend: true, margin: { t: 20, b: 60 },
    legend: { orientation: "h", x: 0, xanchor: "left", y: -0.16, yanchor: "top", font: { size: 13 } },
    shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 100 * data.base, y1: 100 * data.base, line: { color: ink("base"), width: 1.5, dash: "dash" } }],
    annotations: [{ xref: "paper", x: 0, xanchor: "left", y: 100 * data.base, yanchor: "bottom", text: "base " + percent(data.base), showarrow: false, font: { size: 12, color: ink("muted") } }],
    xaxis: { title: { text: data.heads ? "heads kept" : "MACs left, % of the base" } }, yaxis: { title: { text: "accuracy, %" } },
  });
}

function buttons(id, entries, pressed) {
  for (const [value, label] of entries) {
    const button = element("button", label);
    button.value = value;
    button.setAttribute("aria-pressed", String(value === pressed));
    byId(id).append(button);
  }
}

if (data.stages.length) {
  buttons("stage", data.stages, chosen.stage);
  toggle("stage", (value) => { chosen.stage = value; drawAccuracy(); });
  if (data.recoveries.length > 1) {
    byId("recovery-part").hidden = false;
    buttons("recovery", [["", "all"], ...data.recoveries], chosen.recovery);
    toggle("recovery", (value) => { chosen.recovery = value; drawAccuracy(); });
  }
  drawing(drawAccuracy);
}
