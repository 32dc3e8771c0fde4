// Who says what the removed units said. Rows of g.took: unit, explained, then kept unit and part in
// turn, per mille, the best explained first; parts below 1 % are not listed.
const one = data.unit.replace(/s$/, "");
const WELL = 900;
const pinned = { unit: null };

const tookOf = (g) => g.took.map(([unit, explained, ...flat]) => ({
  unit, explained, by: flat.flatMap((u, i) => (i % 2 ? [] : [[u, flat[i + 1]]])),
}));

// Whole per cents, but 89.9 % is not said to be 90 %, nor 99.9 % to be all.
function share(p) {
  const near = (limit) => Math.round(p / 10) === limit && p < 10 * limit;
  return (near(90) || near(100) ? (p / 10).toFixed(1) : String(Math.round(p / 10))) + NB + "%";
}
const listed = (parts) => (parts.length < 2 ? parts.join("") : parts.slice(0, -1).join(", ") + " and " + parts[parts.length - 1]);

// "channel 17: 3 and 9 say 94 % of what it said". When more than four are needed, the foremost three.
function sentence(t) {
  const name = one + " " + t.unit + ": ";
  if (t.explained < 10) return name + "no mix of the kept ones says what it said";
  let sum = 0;
  const enough = t.by.findIndex(([, s]) => { sum += s; return sum >= t.explained - 10; }) + 1;
  if (enough && enough <= 4) {
    return name + listed(t.by.slice(0, enough).map(([u]) => String(u))) + (enough > 1 ? " say " : " says ") + share(t.explained) + " of what it said";
  }
  const foremost = t.by.slice(0, 3).map(([u, s]) => u + NB + "(" + share(s) + ")");
  return name + "the kept ones together say " + share(t.explained) + " of what it said" + (foremost.length ? ", foremost " + listed(foremost) : "");
}

// A bar of the parts: who took over how much, and what is lost.
function splitBar(t) {
  const bar = element("div", undefined, "split");
  const part = (size, text, brief, kind, about) => {
    if (size < 5) return;
    const made = element("span", size >= 110 ? text : size >= 40 ? brief : "", kind);
    made.style.flexGrow = String(size);
    made.title = about;
    bar.append(made);
  };
  t.by.forEach(([u, s], i) => part(s, u + ": " + share(s), String(u), i % 2 ? "even" : "odd", u + " says " + share(s)));
  const rest = t.explained - t.by.reduce((sum, [, s]) => sum + s, 0);
  part(rest, "others: " + share(rest), "…", "others", "others say " + share(rest));
  part(1000 - t.explained, "lost " + share(1000 - t.explained), "lost", "lost", share(1000 - t.explained) + " is said by nobody");
  return bar;
}

function tellUnit(t) {
  const text = sentence(t);
  byId("took-sentence").textContent = text[0].toUpperCase() + text.slice(1) + ".";
  byId("took-split").replaceChildren(splitBar(t));
}

// Kept units, those that took over most first: [unit, sum of parts, list of [removed unit, part]].
function helpers(g, entries) {
  const found = new Map(g.kept.map((u) => [u, [u, 0, []]]));
  for (const t of entries) for (const [u, s] of t.by) {
    const row = found.get(u);
    row[1] += s;
    row[2].push([t.unit, s]);
  }
  const rows = [...found.values()].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  for (const row of rows) row[2].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  return rows;
}

function drawTook(g) {
  const entries = tookOf(g), order = helpers(g, entries).map(([u]) => u), row = new Map(order.map((u, i) => [u, i]));
  const columns = entries.map((_, i) => i), R = entries.length, K = order.length, small = narrow();
  const about = entries.map((t) => safe(sentence(t)));
  // Cells without a part share the column's text, so that 256 × 256 cells cost one array.
  const parts = order.map(() => new Array(R).fill(0)), texts = order.map(() => about.slice());
  entries.forEach((t, i) => { for (const [u, s] of t.by) {
    parts[row.get(u)][i] = s / 10;
    texts[row.get(u)][i] = "<b>" + u + " says " + share(s) + " of what " + t.unit + " said</b><br>" + about[i];
  } });
  const bars = 110, gap = 14, heat = Math.min(560, Math.max(120, 24 * K)), inner = bars + gap + heat;
  const few = (n, room) => n <= room;
  const ticks = (list, yes) => (yes ? { tickvals: list.map((_, i) => i), ticktext: list.map((u) => u + " "), ticks: "" } : { showticklabels: false, ticks: "" });
  const bar = (y, colours) => ({ type: "bar", x: columns, y, yaxis: "y2", marker: { color: colours, line: { width: 0 } }, hovertext: about, hoverinfo: "text" });
  const paper = ink("paper"), gridded = Math.max(R, K) <= 64 ? 1 : 0;
  const frame = (i) => ({
    type: "rect", xref: "x", yref: "paper", x0: i - 0.5, x1: i + 0.5, y0: 0, y1: 1, line: { color: ink("accent"), width: 1.5 }, fillcolor: "rgba(0,0,0,0)",
  });
  const limit = { type: "line", xref: "paper", yref: "y2", x0: 0, x1: 1, y0: WELL / 10, y1: WELL / 10, line: { color: ink("accent"), width: 1, dash: "dot" } };
  const place = (unit) => entries.findIndex((t) => t.unit === unit);
  if (place(pinned.unit) < 0) pinned.unit = entries[R - 1].unit;
  byId("took-caption").textContent = "A column is a removed " + one + ", the best explained first; its bar is the share of what it said that the kept ones say, the dotted line 90" +
    NB + "%. A row is a kept " + one + ", the busiest on top; the stronger its colour, the more of the column it says. Choose a column to read it below.";
  react("took", [
    {
      type: "heatmap", x: columns, y: order.map((_, i) => i), z: parts, text: texts, hoverinfo: "text", xgap: gridded, ygap: gridded, zmin: 0, zmax: 100,
      colorscale: [[0, ink("panel")], [0.0099, ink("panel")], [0.01, ink("pale")], [0.4, ink("soft")], [1, ink("kept")]],
      colorbar: { thickness: 10, len: Math.min(heat, 220) / inner, y: heat / inner, yanchor: "top", outlinewidth: 0, tickvals: [1, 25, 50, 75, 100], ticktext: [1, 25, 50, 75, 100].map((n) => n + NB + "%"), tickfont: { size: 11, color: ink("muted") } },
    },
    bar(entries.map((t) => t.explained / 10), entries.map((t) => (t.explained >= WELL ? ink("kept") : ink("soft")))),
    bar(entries.map((t) => 100 - t.explained / 10), ink("removed")),
  ], {
    height: inner + 66, barmode: "stack", bargap: R > 64 ? 0 : 0.12, margin: { t: 12, b: 46, r: 4 }, shapes: [limit, frame(place(pinned.unit))],
    plot_bgcolor: paper,
    xaxis: {
      range: [-0.5, R - 0.5], showgrid: false, title: { text: "removed " + data.unit + ", best explained first" }, anchor: "y",
      tickangle: 0, ...ticks(entries.map((t) => t.unit), few(R, small ? 14 : 40)),
    },
    yaxis: { range: [K - 0.5, -0.5], domain: [0, heat / inner], showgrid: false, title: { text: "kept " + data.unit }, ...ticks(order, few(K, 40)) },
    yaxis2: { range: [0, 100], domain: [(heat + gap) / inner, 1], tickvals: [0, 50, 100], ticktext: [0, 50, 100].map((n) => n + NB + "%") },
  });
  const pick = byId("took-unit");
  pick.replaceChildren(...[...entries].sort((a, b) => a.unit - b.unit).map((t) => {
    const option = element("option", t.unit + " (" + share(t.explained) + ")");
    option.value = String(t.unit);
    return option;
  }));
  const pin = (unit) => {
    pinned.unit = unit;
    pick.value = String(unit);
    tellUnit(entries[place(unit)]);
    Plotly.relayout("took", { shapes: [limit, frame(place(unit))] });
  };
  pick.onchange = () => pin(Number(pick.value));
  pick.value = String(pinned.unit);
  tellUnit(entries[place(pinned.unit)]);
  const chart = byId("took");
  for (const event of ["plotly_click", "plotly_hover", "plotly_unhover"]) chart.removeAllListeners(event);
  chart.on("plotly_click", (event) => pin(entries[Math.round(event.points[0].x)].unit));
  chart.on("plotly_hover", (event) => tellUnit(entries[Math.round(event.points[0].x)]));
  chart.on("plotly_unhover", () => tellUnit(entries[place(pinned.unit)]));
  drawRemoved(entries);
}

// The figures behind the picture, the least explained first.
function drawRemoved(entries) {
  byId("took-count").textContent = whole(entries.length);
  const rows = [...entries].reverse().map((t) => [
    String(t.unit), share(t.explained), t.by.map(([u, s]) => u + NB + "(" + share(s) + ")").join(", ") || "nobody says 1" + NB + "% of it alone",
  ]);
  byId("took-table").replaceChildren(table([["Removed " + one, ""], ["explained", "number"], ["by", "long gap"]], rows));
}

// A row a kept unit: whose parts it took over.
function helperTable(g) {
  const most = 10, rows = helpers(g, tookOf(g)).map(([u, sum, list]) => [
    String(u),
    list.length
      ? list.slice(0, most).map(([r, s]) => r + NB + "(" + share(s) + ")").join(", ") + (list.length > most ? " and " + (list.length - most) + " more" : "")
      : "nothing: it stays for what it says itself",
    String(list.length), (sum / 1000).toFixed(2),
  ]);
  return table([["Kept " + one, ""], ["took over from", "long"], ["how many", "number"], ["in all", "number"]], rows);
}
