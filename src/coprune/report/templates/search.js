// The search for a budget: accuracy of every size that was tried, the allowed drop, the chosen one.
const view = { zoom: "near" };

// Probes far below the limit would press everything else into a line: they are marked at the edge.
function farBelow(probes) {
  const { base, limit } = data.search;
  if (base === null || limit === null) return [];
  const edge = base - Math.max(5 * limit, 2) / 100;
  return probes.filter((p) => p.value < edge);
}

function drawSearch() {
  const { probes, base, limit } = data.search, far = view.zoom === "near" ? farBelow(probes) : [], near = probes.filter((p) => !far.includes(p));
  // The interval belongs to the drop; the base is the same for all, so it is the accuracy's mirrored.
  const up = (p) => (p.low === null ? 0 : p.drop - p.low), down = (p) => (p.high === null ? 0 : p.high - p.drop);
  const about = (p, name) => percent(p.macs, 1) + " of the MACs<br>accuracy " + percent(p.value) +
    (p.drop === null ? "" : "<br>points lost: " + number(p.drop) + (p.low === null ? "" : " (" + number(p.low) + " to " + number(p.high) + ")")) + "<br>" + name;
  const trace = (ok, name, marker) => {
    const list = near.filter((p) => p.ok === ok);
    return {
      type: "scatter", mode: "markers", name, x: list.map((p) => 100 * p.macs), y: list.map((p) => 100 * p.value), marker, cliponaxis: false,
      error_y: { type: "data", symmetric: false, visible: list.some((p) => p.low !== null), array: list.map(up), arrayminus: list.map(down), color: marker.color, thickness: 1.5, width: 4 },
      hovertext: list.map((p) => about(p, name)), hoverinfo: "text",
    };
  };
  const order = [...probes].sort((a, b) => a.macs - b.macs);
  const all = near.flatMap((p) => [100 * p.value + up(p), 100 * p.value - down(p)]);
  if (base !== null) all.push(100 * base);
  if (base !== null && limit !== null) all.push(100 * base - limit);
  const ends = [Math.min(...all), Math.max(...all)], room = 0.08 * (ends[1] - ends[0]) || 1, bottom = ends[0] - room * (far.length ? 2.5 : 1);
  const traces = [
    { type: "scatter", mode: "lines", x: order.map((p) => 100 * p.macs), y: order.map((p) => 100 * p.value), line: { color: ink("line"), width: 2 }, hoverinfo: "skip", showlegend: false },
    trace(true, limit === null ? "tried" : "within the allowed drop", { size: 12, color: ink("kept"), symbol: "circle" }),
  ];
  if (near.some((p) => !p.ok)) traces.push(trace(false, "refused", { size: 11, color: ink("accent"), symbol: "x" }));
  if (far.length) traces.push({
    type: "scatter", mode: "markers+text", name: "refused, far below", x: far.map((p) => 100 * p.macs), y: far.map(() => bottom + 0.7 * room), cliponaxis: false,
    text: far.map((p) => percent(p.value, 1)), textposition: far.map((p) => (p.macs > 0.5 ? "middle left" : "middle right")), textfont: { size: 12, color: ink("muted") },
    marker: { size: 10, color: ink("accent"), symbol: "triangle-down-open", line: { width: 1.5 } }, hovertext: far.map((p) => about(p, "refused")), hoverinfo: "text",
  });
  const annotations = [], shapes = [];
  if (base !== null && limit !== null) {
    const y = 100 * base - limit;
    shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color: ink("accent"), width: 1.5, dash: "dash" } });
    annotations.push({ xref: "paper", x: 0, xanchor: "left", y, yanchor: "bottom", text: "allowed drop: " + number(limit) + (limit === 1 ? " point" : " points"), showarrow: false, font: { size: 12, color: ink("accent") } });
  }
  const chosen = probes.filter((p) => p.chosen && !far.includes(p));
  if (chosen.length) traces.push({
    type: "scatter", mode: "markers", name: "chosen", x: chosen.map((p) => 100 * p.macs), y: chosen.map((p) => 100 * p.value), hoverinfo: "skip", cliponaxis: false,
    marker: { size: 22, color: ink("ink"), symbol: "circle-open", line: { width: 2 } },
  });
  react("search", traces, {
    height: 380, showlegend: true, margin: { t: 34, b: 46 }, shapes, annotations,
    xaxis: { title: { text: "MACs left, % of the base" }, rangemode: "tozero" }, yaxis: { title: { text: "accuracy, %" }, range: [bottom, ends[1] + room] },
  });
}

if (data.search.probes.length) {
  byId("zoom").hidden = !farBelow(data.search.probes).length;
  drawing(drawSearch);
  toggle("zoom", (value) => { view.zoom = value; drawSearch(); });
}
