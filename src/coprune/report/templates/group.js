// The chosen group: one at a time, however many there are.
const current = () => groups[state.group];

function show(id, yes) { byId(id).hidden = !yes; return yes; }

const capital = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);

function drawCurve(g) {
  const error = g.curve_name === "reconstruction error";
  const ks = g.curve.map((p) => p[0]), values = g.curve.map((p) => (error ? 100 : 1) * p[1]), K = g.kept.length;
  const at = (k) => { const i = ks.indexOf(k); return i < 0 ? null : values[i]; };
  byId("curve-title").textContent = capital(g.curve_name) || "The curve";
  byId("curve-caption").textContent = (g.knee ? "Diamond: what the curve itself says. " : "") + "Dot: what was kept." +
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
  const lean = (k, right) => (k > 0.8 * g.size ? "right" : k < 0.2 * g.size ? "left" : right ? "right" : "left");
  if (g.knee && g.knee.k === K) mark(K, "knee and kept: " + K, ink("accent"), "diamond", lean(K, false));
  else {
    const low = g.knee && g.knee.k < K;
    if (g.knee) mark(g.knee.k, "knee: " + g.knee.k, ink("accent"), "diamond", lean(g.knee.k, low));
    mark(K, "kept: " + K, ink("kept"), "circle", lean(K, g.knee && !low));
    // Two labels that lean the same way stand one above the other.
    if (annotations.length > 1 && annotations[0].xanchor === annotations[1].xanchor) annotations[0].yshift = 17;
  }
  react("curve", traces, {
    height: 400, margin: { t: 44, b: 46 }, shapes, annotations,
    xaxis: { title: { text: "kept units k" }, range: [0, g.size + 0.5] },
    yaxis: error ? { rangemode: "tozero", ticksuffix: NB + "%" } : {},
  });
}

function spoken(g, unit, took) {
  if (took.has(unit)) return "<br>" + safe(sentence(took.get(unit)));
  if (!g.stand.length) return "";
  const by = g.stand[unit];
  if (by === unit) return "<br>stays";
  return by === null ? "<br>nobody of its cluster stays" : "<br>" + unit + ": said what " + by + " says";
}

function drawMap(g) {
  const took = new Map(tookOf(g).map((t) => [t.unit, t]));
  // A line leads to the unit that stands for it: that of its cluster, or the foremost of those that took over.
  const stands = (u) => (took.has(u) ? (took.get(u).by[0] || [null])[0] : g.stand.length ? g.stand[u] : null);
  const kept = new Set(g.kept), units = g.position.map((_, i) => i), clustered = g.clusters.length > 0;
  const about = (u) => "<b>unit " + u + "</b> " + (kept.has(u) ? "(kept)" : "(removed)") + (clustered ? "<br>cluster " + g.clusters[u] : "") + spoken(g, u, took);
  const colour = (u) => (clustered ? hue(g.clusters[u]) : kept.has(u) ? ink("kept") : ink("base"));
  const form = (u) => (clustered ? shape(g.clusters[u]) : "circle");
  const stay = units.filter((u) => kept.has(u)), gone = units.filter((u) => !kept.has(u));
  const spokes = { x: [], y: [] };
  for (const u of gone) {
    const by = stands(u);
    if (by === null) continue;
    spokes.x.push(g.position[u][0], g.position[by][0], null);
    spokes.y.push(g.position[u][1], g.position[by][1], null);
  }
  const points = (list, marker, more) => ({
    type: "scatter", mode: "markers", x: list.map((u) => g.position[u][0]), y: list.map((u) => g.position[u][1]),
    hovertext: list.map(about), hoverinfo: "text", marker, ...more,
  });
  const many = units.length > 300, label = stay.length <= 40;
  byId("map-caption").textContent = "Filled: kept. Hollow: removed" + (spokes.x.length ? ", with a line to the kept unit that " + (took.size ? "says most of it" : "stands for it") : "") +
    (clustered ? ". Colour and shape: cluster." : ".");
  const plain = { showline: true, mirror: true, ticks: "", showticklabels: false, showgrid: false, fixedrange: false };
  react("map", [
    { type: "scatter", mode: "lines", x: spokes.x, y: spokes.y, line: { color: ink("base"), width: 1 }, opacity: 0.55, hoverinfo: "skip" },
    points(gone, { size: many ? 6 : 9, symbol: gone.map((u) => form(u) + "-open"), color: gone.map(colour), line: { width: 1.5 } }),
    points(stay, { size: many ? 10 : 15, symbol: stay.map(form), color: stay.map(colour), line: { color: ink("paper"), width: 1.5 } }, label && {
      mode: "markers+text", text: stay.map(String), textposition: "top center", textfont: { size: 11, color: ink("ink") },
    }),
  ], {
    height: 400, margin: { t: 24, b: 12, r: 12, l: 12 }, dragmode: narrow() ? false : "zoom",
    xaxis: { ...plain, automargin: false }, yaxis: { ...plain, automargin: false },
  }, { displayModeBar: many && !narrow(), modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] });
}

const ranking = (g) => g.score.map((_, u) => u).sort((a, b) => g.score[b] - g.score[a] || a - b);

function drawScore(g) {
  const kept = new Set(g.kept), order = ranking(g), rank = new Map(order.map((u, i) => [u, i + 1]));
  const bars = (name, colour, yes) => {
    const list = order.filter((u) => kept.has(u) === yes);
    return {
      type: "bar", name, x: list.map((u) => rank.get(u)), y: list.map((u) => g.score[u]), marker: { color: colour, line: { width: 0 } }, width: order.length > 150 ? 1 : 0.78,
      hovertext: list.map((u) => "<b>unit " + u + "</b> (" + name + ")<br>rank " + rank.get(u) + "<br>score " + number(g.score[u])), hoverinfo: "text",
    };
  };
  react("score", [bars("kept", ink("kept"), true), bars("removed", ink("removed"), false)], {
    height: 320, showlegend: true, barmode: "overlay", margin: { t: 34, b: 46 },
    xaxis: { title: { text: "rank" }, showgrid: false, range: [0.3, order.length + 0.7] }, yaxis: { title: { text: "score" }, rangemode: "tozero" },
  });
}

// 3, 4, 5, 9 → "3–5, 9"; a long list ends in a count.
function ranges(list, most = 24) {
  const parts = [], counts = [];
  for (let i = 0, j; i < list.length; i = j + 1) {
    j = i;
    while (j + 1 < list.length && list[j + 1] === list[j] + 1) j += 1;
    if (j > i + 1) { parts.push(list[i] + "–" + list[j]); counts.push(j - i + 1); }
    else for (let n = i; n <= j; n += 1) { parts.push(String(list[n])); counts.push(1); }
  }
  if (parts.length <= most) return parts.join(", ");
  const rest = counts.slice(most).reduce((a, b) => a + b, 0);
  return parts.slice(0, most).join(", ") + " and " + rest + " more";
}

function whyTable(g) {
  if (g.took.length) return helperTable(g);
  if (g.stand.length) {
    const rows = new Map(g.kept.map((u) => [u, []])), orphans = [];
    g.stand.forEach((by, u) => { if (by === null) orphans.push(u); else if (by !== u) rows.get(by).push(u); });
    const ranked = g.score.length > 0, order = [...rows].sort((a, b) => b[1].length - a[1].length || a[0] - b[0]);
    const lines = order.map(([u, list]) => [
      String(u), list.length ? ranges(list) : "only itself: nothing else says it", String(list.length), ...(ranked ? [number(g.score[u])] : []),
    ]);
    if (orphans.length) lines.push(["nobody", ranges(orphans), String(orphans.length), ...(ranked ? ["–"] : [])]);
    return table([["Kept unit", ""], ["stands for", "long"], ["how many", "number"], ...(ranked ? [["score", "number"]] : [])], lines);
  }
  if (g.score.length) {
    const kept = new Set(g.kept);
    const lines = ranking(g).map((u, i) => [u, i]).filter(([u]) => kept.has(u));
    return table([["Kept unit", ""], ["rank", "number"], ["score", "number"]], lines.map(([u, i]) => [String(u), (i + 1) + " of " + g.size, number(g.score[u])]));
  }
  const frame = element("p");
  frame.append("Kept units: " + ranges(g.kept, 200) + ".");
  return frame;
}

function drawGroup() {
  const g = current(), K = g.kept.length;
  byId("group").value = String(state.group);
  byId("previous").disabled = state.group === 0;
  byId("next").disabled = state.group === groups.length - 1;
  byId("reason").textContent = "Kept " + whole(K) + " of " + whole(g.size) + ". " + capital(g.reason);
  if (show("knee", g.knee)) {
    byId("knee").textContent = g.knee.fallback
      ? "The curve has no knee of its own (" + g.knee.rule + "): " + g.knee.fallback
      : "The knee is at k = " + whole(g.knee.k) + " (" + g.knee.rule + ")" + (g.knee.k === K ? "." : "; the budget made it " + whole(K) + ".");
  }
  if (show("took-summary", g.took_summary)) byId("took-summary").textContent = g.took_summary;
  show("took-all", g.took.length);
  if (show("took-part", g.took.length)) drawTook(g);
  if (show("why-caption", g.took.length)) {
    byId("why-caption").textContent = "In brackets the part of the removed " + one + " that it says; parts below 1" + NB + "% are left out. In all: 1.00 is the whole of one " + one + ".";
  }
  const ranked = g.score.length && !g.clusters.length;
  byId("map-part").classList.toggle("wide", !g.curve.length);
  byId("curve-part").classList.toggle("wide", !g.position.length);
  if (show("curve-part", g.curve.length)) drawCurve(g);
  if (show("map-part", g.position.length)) drawMap(g);
  if (show("score-part", ranked)) drawScore(g);
  show("bare", !g.curve.length && !g.position.length && !g.score.length && !g.took.length);
  const why = whyTable(g), rows = why.querySelectorAll("tbody tr").length;
  if (rows > 60) {
    const folded = element("details");
    folded.append(element("summary", "All " + whole(rows) + " kept units"), why);
    byId("why").replaceChildren(folded);
  } else byId("why").replaceChildren(why);
  byId("member-count").textContent = String(g.members.length);
  byId("members").replaceChildren(table(
    [["Layer", "long"], ["role", ""], ["channels a unit", "number"]], g.members.map(([layer, role, span]) => [layer, role, String(span)]),
  ));
}

function choose(index) { state.group = Math.min(Math.max(index, 0), groups.length - 1); pinned.unit = null; drawGroup(); }

if (groups.length) {
  groups.forEach((g, i) => {
    const option = element("option", g.name + " (" + whole(g.kept.length) + " of " + whole(g.size) + ")");
    option.value = String(i);
    byId("group").append(option);
  });
  byId("group").addEventListener("change", (event) => choose(Number(event.target.value)));
  byId("previous").addEventListener("click", () => choose(state.group - 1));
  byId("next").addEventListener("click", () => choose(state.group + 1));
  byId("overview").on("plotly_click", (event) => {
    choose(Math.round(event.points[0].y));
    byId("one").scrollIntoView({ behavior: "smooth" });
  });
  drawing(drawGroup);
} else show("one", false);
