// Accuracy against MACs, a line a method.
const methods = [...new Set(data.series.map((s) => s.method))];
const chosen = { stage: data.stages.length ? data.stages[data.stages.length - 1][0] : null };
const DASHES = ["solid", "dash", "dot", "dashdot"];

function drawAccuracy() {
  const traces = data.series.map((s) => {
    const points = s.points[chosen.stage], i = methods.indexOf(s.method), colour = hue(i);
    return {
      type: "scatter", mode: "lines+markers", name: safe(s.label), showlegend: points.length > 0,
      x: points.map((p) => 100 * p.macs), y: points.map((p) => 100 * p.mean),
      error_y: {
        type: "data", symmetric: false, thickness: 1.5, width: 4, color: colour,
        array: points.map((p) => 100 * (p.high - p.mean)), arrayminus: points.map((p) => 100 * (p.mean - p.low)),
      },
      line: { color: colour, width: 2, dash: DASHES[s.variant % DASHES.length] }, marker: { color: colour, size: 9, symbol: SHAPES[i % SHAPES.length] },
      hovertext: points.map((p) => "<b>" + safe(s.label) + "</b><br>budget " + safe(p.budget) + ": " + percent(p.macs, 1) + " of the MACs<br>" +
        percent(p.mean) + (p.seeds > 1 ? " (" + percent(p.low) + " – " + percent(p.high) + ", " + p.seeds + " seeds)" : "")),
      hoverinfo: "text",
    };
  });
  const small = narrow(), rows = Math.ceil(traces.length / (small ? 1 : 4));
  react("accuracy", traces, {
    height: 400 + 22 * rows, showlegend: true, margin: { t: 20, b: 60 },
    legend: { orientation: "h", x: 0, xanchor: "left", y: -0.16, yanchor: "top", font: { size: 13 } },
    shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 100 * data.base, y1: 100 * data.base, line: { color: ink("base"), width: 1.5, dash: "dash" } }],
    annotations: [{ xref: "paper", x: 0, xanchor: "left", y: 100 * data.base, yanchor: "bottom", text: "base " + percent(data.base), showarrow: false, font: { size: 12, color: ink("muted") } }],
    xaxis: { title: { text: "MACs left, % of the base" } }, yaxis: { title: { text: "accuracy, %" } },
  });
}

if (data.stages.length) {
  for (const [stage, label] of data.stages) {
    const button = element("button", label);
    button.value = stage;
    button.setAttribute("aria-pressed", String(stage === chosen.stage));
    byId("stage").append(button);
  }
  toggle("stage", (value) => { chosen.stage = value; drawAccuracy(); });
  drawing(drawAccuracy);
}
