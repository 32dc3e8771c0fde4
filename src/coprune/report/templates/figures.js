// Figures that one group and all heads together share: a curve, units in a plane, sorted scores.
const capital = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);

// The curve over k, into the parts `id`, `id`-title and `id`-caption. c: curve, curve_name, knee, size; the choice was
// made `at` a k, and `kept` stay.
function drawCurve(id, c, { what, axis }) {
  const error = c.curve_name === "reconstruction error";
  const ks = c.curve.map((p) => p[0]), values = c.curve.map((p) => (error ? 100 : 1) * p[1]), K = c.at;
  const at = (k) => { const i = ks.indexOf(k); return i < 0 ? null : values[i]; };
  byId(id + "-title").textContent = capital(c.curve_name) || "The curve";
  byId(id + "-caption").textContent = (c.knee ? "Diamond: what the curve itself says. " : "") + "Dot: what was kept." + (what ? " " + what : "") +
    (error ? " Share of what the next layers read that is lost when k " + data.unit + " stay" + (at(K) === null ? "." : ": " + at(K).toLocaleString("en", { maximumSignificantDigits: 3 }) + NB + "% with " + K + ".") : "");
  const traces = [{
    type: "scatter", mode: ks.length > 60 ? "lines" : "lines+markers", x: ks, y: values, line: { color: ink("base"), width: 2 },
    marker: { size: 4, color: ink("base") }, hovertemplate: "k = %{x}<br>%{y:.4g}" + (error ? NB + "%" : "") + "<extra></extra>",
  }];
  const shapes = [], annotations = [];
  const mark = (k, text, colour, symbol, anchor) => {
    shapes.push({ type: "line", x0: k, x1: k, yref: "paper", y0: 0, y1: 1, line: { color: colour, width: 1.5, dash: "dot" } });
    annotations.push({
      x: k, yref: "paper", y: 1, yanchor: "bottom", xanchor: anchor, text: anchor === "right" ? text + " " : " " + text,
      showarrow: false, font: { color: colour, size: 13 },
    });
    if (at(k) !== null) traces.push({
      type: "scatter", mode: "markers", x: [k], y: [at(k)], hovertemplate: text + "<extra></extra>",
      marker: { size: 13, color: colour, symbol, line: { color: ink("paper"), width: 1.5 } },
    });
  };
  // The label of a line near an end would leave the chart: it leans inwards instead.
  const lean = (k, right) => (k > 0.8 * c.size ? "right" : k < 0.2 * c.size ? "left" : right ? "right" : "left");
  const stay = K === c.kept ? "kept: " + K : K + " clusters, " + c.kept + " kept";
  if (c.knee && c.knee.k === K) mark(K, K === c.kept ? "knee and kept: " + K : "knee: " + stay, ink("accent"), "diamond", lean(K, false));
  else {
    const low = c.knee && c.knee.k < K;
    if (c.knee) mark(c.knee.k, "knee: " + c.knee.k, ink("accent"), "diamond", lean(c.knee.k, low));
    mark(K, stay, ink("kept"), "circle", lean(K, c.knee && !low));
    // Two labels that lean the same way stand one above the other.
    if (annotations.length > 1 && annotations[0].xanchor === annotations[1].xanchor) annotations[0].yshift = 17;
  }
  react(id, traces, {
    height: 400, margin: { t: 44, b: 46 }, shapes, annotations,
    xaxis: { title: { text: axis }, range: [0, c.size + 0.5] },
    yaxis: error ? { rangemode: "tozero", ticksuffix: NB + "%" } : {},
  });
}

// Units in two dimensions. p: position [[x, y]], kept (a set), about(u): hover text, stands(u): the unit that stands
// for a removed one or null, cluster(u) or null, name(u): what a kept one is labelled with.
function drawPlane(id, p) {
  const units = p.position.map((_, i) => i), stay = units.filter((u) => p.kept.has(u)), gone = units.filter((u) => !p.kept.has(u));
  const colour = (u) => (p.cluster ? hue(p.cluster(u)) : p.kept.has(u) ? ink("kept") : ink("base"));
  const form = (u) => (p.cluster ? shape(p.cluster(u)) : "circle");
  const spokes = { x: [], y: [] };
  for (const u of gone) {
    const by = p.stands(u);
    if (by === null) continue;
    spokes.x.push(p.position[u][0], p.position[by][0], null);
    spokes.y.push(p.position[u][1], p.position[by][1], null);
  }
  const points = (list, marker, more) => ({
    type: "scatter", mode: "markers", x: list.map((u) => p.position[u][0]), y: list.map((u) => p.position[u][1]),
    hovertext: list.map(p.about), hoverinfo: "text", marker, ...more,
  });
  const many = units.length > 300, label = stay.length <= 40;
  byId(id + "-caption").textContent = "Filled: kept. Hollow: removed" + (spokes.x.length ? ", with a line to the kept " + p.unit + " that " + p.does : "") +
    (p.cluster ? ". Colour and shape: cluster." : ".") + (p.more && label ? " " + p.more : "");
  const plain = { showline: true, mirror: true, ticks: "", showticklabels: false, showgrid: false, fixedrange: false };
  react(id, [
    { type: "scatter", mode: "lines", x: spokes.x, y: spokes.y, line: { color: ink("base"), width: 1 }, opacity: 0.55, hoverinfo: "skip" },
    points(gone, { size: many ? 6 : 9, symbol: gone.map((u) => form(u) + "-open"), color: gone.map(colour), line: { width: 1.5 } }),
    points(stay, { size: many ? 10 : 15, symbol: stay.map(form), color: stay.map(colour), line: { color: ink("paper"), width: 1.5 } }, label && {
      mode: "markers+text", text: stay.map(p.name), textposition: "top center", textfont: { size: 11, color: ink("ink") },
    }),
  ], {
    height: 400, margin: { t: 24, b: 12, r: 12, l: 12 }, dragmode: narrow() ? false : "zoom",
    xaxis: { ...plain, automargin: false }, yaxis: { ...plain, automargin: false },
  }, { displayModeBar: many && !narrow(), modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] });
}

// Units from the highest score to the lowest; of equals the first comes first.
const ranking = (score) => score.map((_, u) => u).sort((a, b) => score[b] - score[a] || a - b);

// Scores as sorted bars. kept: a set; about(u, rank): hover text.
function drawScores(id, score, kept, { about, name }) {
  const order = ranking(score), rank = new Map(order.map((u, i) => [u, i + 1]));
  const bars = (label, colour, yes) => {
    const list = order.filter((u) => kept.has(u) === yes);
    return {
      type: "bar", name: label, x: list.map((u) => rank.get(u)), y: list.map((u) => score[u]), marker: { color: colour, line: { width: 0 } }, width: order.length > 150 ? 1 : 0.78,
      hovertext: list.map((u) => about(u, rank.get(u))), hoverinfo: "text",
    };
  };
  react(id, [bars("kept", ink("kept"), true), bars("removed", ink("removed"), false)], {
    height: 320, showlegend: true, barmode: "overlay", margin: { t: 34, b: 46 },
    xaxis: { title: { text: "rank" }, showgrid: false, range: [0.3, order.length + 0.7] }, yaxis: { title: { text: name }, rangemode: "tozero" },
  });
}
