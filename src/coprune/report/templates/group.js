// The chosen group: one at a time, however many there are.
const current = () => groups[state.group];

function show(id, yes) { byId(id).hidden = !yes; return yes; }

function spoken(g, unit, took) {
  if (took.has(unit)) return "<br>" + safe(sentence(took.get(unit)));
  if (!g.stand.length) return "";
  const by = g.stand[unit];
  if (by === unit) return "<br>stays";
  return by === null ? "<br>nobody of its cluster stays" : "<br>" + unit + ": said what " + by + " says";
}

function drawMap(g) {
  const took = new Map(tookOf(g).map((t) => [t.unit, t]));
  const kept = new Set(g.kept), clustered = g.clusters.length > 0;
  drawPlane("map", {
    position: g.position, kept, unit: "unit", does: took.size ? "says most of it" : "stands for it", name: String,
    // A line leads to the unit that stands for it: that of its cluster, or the foremost of those that took over.
    stands: (u) => (took.has(u) ? (took.get(u).by[0] || [null])[0] : g.stand.length ? g.stand[u] : null),
    cluster: clustered ? (u) => g.clusters[u] : null,
    about: (u) => "<b>unit " + u + "</b> " + (kept.has(u) ? "(kept)" : "(removed)") + (clustered ? "<br>cluster " + g.clusters[u] : "") + spoken(g, u, took),
  });
}

function drawScore(g) {
  const kept = new Set(g.kept);
  drawScores("score", g.score, kept, {
    name: "score",
    about: (u, rank) => "<b>unit " + u + "</b> (" + (kept.has(u) ? "kept" : "removed") + ")<br>rank " + rank + "<br>score " + number(g.score[u]),
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
  const layer = data.heads && data.heads.joint ? data.heads.layers.find((l) => l.place === state.group) : null;
  if (layer) return headTable(layer);
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
    const lines = ranking(g.score).map((u, i) => [u, i]).filter(([u]) => kept.has(u));
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
  const count = K + " of " + g.size;  // some reasons begin with it
  byId("reason").textContent = "Kept " + (g.reason.startsWith(count) ? g.reason : whole(K) + " of " + whole(g.size) + ". " + capital(g.reason));
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
  if (show("curve-part", g.curve.length)) {
    drawCurve("curve", { ...g, at: K, kept: K }, { axis: "kept units k" });
  }
  if (show("map-part", g.position.length)) drawMap(g);
  if (show("score-part", ranked)) drawScore(g);
  show("bare", !(data.heads && data.heads.joint) && !g.curve.length && !g.position.length && !g.score.length && !g.took.length);
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
  const lookInto = (index) => { choose(index); byId("one").scrollIntoView({ behavior: "smooth" }); };
  if (byId("overview")) byId("overview").on("plotly_click", (event) => lookInto(Math.round(event.points[0].y)));
  if (data.heads) byId("heads-map").on("plotly_click", (event) => lookInto(data.heads.layers[Math.round(event.points[0].y)].place));
  drawing(drawGroup);
} else show("one", false);
