// The attention heads of all layers: which stayed, where they lie, how they score, the curve that counted them.
const heads = data.heads;
// Every head once, in the order of the layers; `u` below is a place in this list.
const everyHead = heads ? heads.layers.flatMap((layer, l) => layer.stays.map((stays, h) => ({ l, h, layer, stays: stays === 1 }))) : [];
const headAt = ([l, h]) => everyHead.findIndex((x) => x.l === l && x.h === h);
const scoreOf = (x) => x.layer.score[x.h];
const headRank = new Map(heads && heads.score ? ranking(everyHead.map(scoreOf)).map((u, i) => [u, i + 1]) : []);

const numberOf = (layer) => layer.label.replace(/^layer /, "");
// "3·7": head 7 of layer 3. Layers without a number are counted.
const short = (l, h) => (heads.layers[l].label.startsWith("layer ") ? numberOf(heads.layers[l]) : l) + "·" + h;
const headName = (l, h) => heads.layers[l].label + ", head " + h;

// Why a head stayed or went, in lines of text.
function reasons(x) {
  const lines = [], by = x.layer.by[x.h], cluster = x.layer.cluster[x.h];
  if (heads.score) {
    const place = heads.joint ? headRank.get(headAt([x.l, x.h])) + " of " + everyHead.length : ranking(x.layer.score).indexOf(x.h) + 1 + " of " + x.layer.score.length + " here";
    lines.push(heads.score + " " + number(scoreOf(x)) + ", rank " + place);
  }
  if (cluster !== undefined) {
    const mates = everyHead.filter((y) => (heads.joint || y.l === x.l) && y.layer.cluster[y.h] === cluster).length - 1;
    lines.push("cluster " + cluster + (mates ? ", with " + mates + (mates > 1 ? " others" : " other") : ", alone"));
  }
  if (!x.stays && x.layer.explained[x.h] != null) lines.push("the kept ones say " + x.layer.explained[x.h] + " of what it said" + (by ? ", foremost head " + by[1] : ""));
  else if (!x.stays && by) lines.push("stands for it: " + headName(...by));
  const speaks = x.stays ? standsFor(x) : [];
  if (speaks.length && !x.layer.explained.length) lines.push("stands for " + ranked(speaks, 8));
  return lines;
}
const standsFor = (x) => everyHead.filter((y) => y.layer.by[y.h] && y.layer.by[y.h][0] === x.l && y.layer.by[y.h][1] === x.h);
const ranked = (list, most) => list.slice(0, most).map((y) => short(y.l, y.h)).join(", ") + (list.length > most ? " and " + (list.length - most) + " more" : "");
const aboutHead = (x) => ["<b>" + safe(headName(x.l, x.h)) + "</b> (" + (x.stays ? "kept" : "removed") + ")", ...reasons(x).map(safe)].join("<br>");

function drawHeadsMap() {
  const layers = heads.layers, L = layers.length, H = Math.max(...layers.map((l) => l.stays.length)), small = narrow();
  const labels = layers.map((l) => elide(l.label, small ? 12 : 22)), left = 14 + 7 * Math.max(...labels.map((t) => t.length)), right = small ? 40 : 64;
  byId("heads-map").style.maxWidth = left + right + 44 * H + "px";
  const cell = Math.max(8, (byId("heads-map").clientWidth - left - right) / H), high = Math.min(30, Math.max(16, cell));
  // Scores of layers that were ranked apart have no common scale: each is shown as a share of its layer's highest.
  const value = (layer, h) => (!heads.score ? layer.stays[h] : heads.joint ? layer.score[h] : layer.score[h] / Math.max(...layer.score, 1e-300));
  const part = (stays, gap, extra) => ({
    type: "heatmap", hoverinfo: "text", hoverongaps: false, xgap: gap * cell, ygap: gap * high,
    x: [...Array(H).keys()], y: layers.map((_, l) => l), z: layers.map((layer) => layer.stays.map((s, h) => (s === stays ? value(layer, h) : null))),
    text: layers.map((layer, l) => layer.stays.map((s, h) => aboutHead({ l, h, layer, stays: s === 1 }))), ...extra,
  });
  const all = everyHead.map((x) => value(x.layer, x.h)), low = Math.min(...all), top = Math.max(...all);
  const scale = heads.score
    ? { zmin: low, zmax: top > low ? top : low + 1, colorscale: [[0, ink("pale")], [1, ink("kept")]] }
    : { zmin: 0, zmax: 1, colorscale: [[0, ink("base")], [1, ink("kept")]] };
  const bar = {
    orientation: "h", thickness: 8, len: 0.6, x: 0, xanchor: "left", y: 0, yanchor: "top", ypad: 46, xpad: 0, outlinewidth: 0, nticks: 5, tickfont: { size: 11, color: ink("muted") },
    title: { text: heads.score + (heads.joint ? "" : ", as a share of the layer's highest"), side: "top", font: { size: 12, color: ink("muted") } },
  };
  react("heads-map", [
    part(1, 0.08, { ...scale, showscale: Boolean(heads.score), colorbar: bar }), part(0, 0.62, { ...scale, showscale: false }),
    {
      type: "scatter", mode: "text", x: layers.map(() => H - 0.5), y: layers.map((_, l) => l), textposition: "middle right", cliponaxis: false, hoverinfo: "skip",
      text: layers.map((l) => " " + l.stays.reduce((a, b) => a + b, 0) + (small ? "/" : " of ") + l.stays.length), textfont: { size: 12, color: ink("muted") },
    },
  ], {
    height: L * high + (heads.score ? 134 : 66), margin: { t: 12, b: heads.score ? 122 : 54, l: left, r: right },
    xaxis: { range: [-0.5, H - 0.5], tickvals: [...Array(H).keys()].filter((h) => cell >= 17 || h % 2 === 0), tickangle: 0, ticks: "", showgrid: false, automargin: false, title: { text: "head" } },
    yaxis: { range: [L - 0.5, -0.5], tickvals: layers.map((_, l) => l), ticktext: labels.map((t) => safe(t) + " "), ticks: "", showgrid: false, automargin: false, tickfont: { size: 12, color: ink("ink") } },
  });
}

function drawHeadsPlane() {
  drawPlane("heads-plane", {
    position: everyHead.map((x) => x.layer.position[x.h]), kept: new Set(everyHead.flatMap((x, u) => (x.stays ? [u] : []))),
    unit: "head", does: "stands for it", more: "3·7 is head 7 of layer 3.",
    cluster: everyHead[0].layer.cluster.length ? (u) => everyHead[u].layer.cluster[everyHead[u].h] : null,
    stands: (u) => { const by = everyHead[u].layer.by[everyHead[u].h]; return by ? headAt(by) : null; },
    about: (u) => aboutHead(everyHead[u]), name: (u) => short(everyHead[u].l, everyHead[u].h),
  });
}

function drawHeadsScore() {
  drawScores("heads-score", everyHead.map(scoreOf), new Set(everyHead.flatMap((x, u) => (x.stays ? [u] : []))), {
    name: heads.score, about: (u) => aboutHead(everyHead[u]),
  });
}

// A row a head of one layer: the figures behind the pictures.
function headTable(layer) {
  const l = heads.layers.indexOf(layer), clustered = layer.cluster.length > 0;
  const rows = layer.stays.map((s, h) => {
    const x = { l, h, layer, stays: s === 1 }, by = layer.by[h], speaks = standsFor(x);
    const who = x.stays ? (speaks.length ? "stands for " + ranked(speaks, 24) : clustered ? "stands for itself alone" : "") : by ? headName(...by) + " stands for it" : "";
    return [
      String(h), x.stays ? "stays" : "removed", ...(heads.score ? [number(layer.score[h]), String(headRank.get(headAt([l, h])))] : []), ...(clustered ? [String(layer.cluster[h]), who] : []),
    ];
  });
  const order = layer.stays.map((_, h) => h).sort((a, b) => layer.stays[b] - layer.stays[a] || a - b);
  return table([
    ["Head", ""], ["", ""], ...(heads.score ? [[heads.score, "number"], ["rank of " + everyHead.length, "number"]] : []), ...(clustered ? [["cluster", "number"], ["", "long gap"]] : []),
  ], order.map((h) => rows[h]));
}

if (heads) {
  drawing(drawHeadsMap);
  if (heads.plane) drawing(drawHeadsPlane);
  if (heads.curve) drawing(() => drawCurve("heads-curve", heads.curve, { axis: "number of heads", what: "Higher: the clusters lie better apart." }));
  if (heads.joint && heads.score) drawing(drawHeadsScore);
}
