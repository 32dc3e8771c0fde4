// The charts about the whole run.
const groups = data.groups;
const state = { group: 0, scale: "units" };

function drawStages() {
  const steps = data.stages, small = narrow();
  const colour = (i) => (i === 0 ? ink("base") : i === steps.length - 1 ? ink("kept") : ink("soft"));
  react("stages", [{
    type: "bar", x: steps.map((s) => s.label), y: steps.map((s) => 100 * s.value), width: 0.56, cliponaxis: false,
    marker: { color: steps.map((_, i) => colour(i)) }, textposition: "outside", textfont: { size: small ? 12 : 14 },
    text: steps.map((s) => percent(s.value) + (s.change === null ? "" : "<br>" + signed(s.change))),
    hovertext: steps.map((s) => s.label + ": " + percent(s.value) +
      (s.calibration === null ? "" : "<br>on calibration data: " + percent(s.calibration))),
    hoverinfo: "text",
  }], {
    height: 300, margin: { t: 48, b: 30 },
    xaxis: { tickfont: { size: small ? 12 : 14, color: ink("ink") }, showgrid: false },
    yaxis: { range: [0, 100], dtick: 25, ticksuffix: NB + "%" },
  });
}

function drawOverview() {
  const share = state.scale === "share", rows = groups.map((_, i) => i);
  const part = (n, g) => (share ? (100 * n) / g.size : n);
  const longest = share ? 100 : Math.max(...groups.map((g) => g.size));
  const figures = groups.map((g) => " " + whole(g.kept.length) + " / " + whole(g.size)), widest = Math.max(...figures.map((f) => f.length));
  const about = groups.map((g) => "<b>" + safe(g.name) + "</b><br>kept " + whole(g.kept.length) + " of " + whole(g.size) +
    (g.knee ? "<br>knee " + g.knee.k + (g.knee.fallback ? " (fallback)" : "") : "") +
    (g.took.length ? "<br>" + whole(g.took.filter((t) => t[1] >= 900).length) + " of " + whole(g.took.length) + " removed ones explained to 90" + NB + "%" : ""));
  const bar = (name, colour, count) => ({
    type: "bar", orientation: "h", name, y: rows, x: groups.map((g) => part(count(g), g)), marker: { color: colour },
    hovertext: about, hoverinfo: "text",
  });
  const knees = rows.filter((i) => groups[i].knee);
  const traces = [
    bar("kept", ink("kept"), (g) => g.kept.length),
    bar("removed", ink("removed"), (g) => g.size - g.kept.length),
    {
      type: "scatter", mode: "text", y: rows, x: groups.map((g) => part(g.size, g)), textposition: "middle right", cliponaxis: false,
      text: figures, textfont: { size: 12, color: ink("muted") },
      hoverinfo: "skip", showlegend: false,
    },
  ];
  if (knees.length) traces.push({
    type: "scatter", mode: "markers", name: "the knee's own choice", y: knees, x: knees.map((i) => part(groups[i].knee.k, groups[i])),
    marker: { symbol: "diamond", size: 11, color: ink("accent"), line: { color: ink("paper"), width: 1.5 } },
    hovertext: knees.map((i) => about[i]), hoverinfo: "text",
  });
  byId("overview-frame").className = groups.length > 40 ? "tall" : "";
  react("overview", traces, {
    height: 92 + 26 * groups.length, barmode: "stack", bargap: 0.3, showlegend: true, margin: { t: 36, b: 44 },
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1, yanchor: "bottom", traceorder: "normal", font: { size: 13 } },
    xaxis: { range: [0, longest * (1 + widest * (narrow() ? 0.04 : 0.013))], title: { text: share ? "share of the group, %" : data.unit }, rangemode: "tozero" },
    yaxis: {
      range: [groups.length - 0.4, -0.6], tickvals: rows, ticktext: groups.map((g) => safe(elide(g.name, narrow() ? 14 : 34)) + " "),
      showgrid: false, tickfont: { size: 12, color: ink("ink") },
    },
  });
}

// Round values between two numbers, for the ticks of a logarithmic axis.
function decades(low, high, steps) {
  const ticks = [];
  for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p += 1) ticks.push(...steps.map((s) => s * 10 ** p));
  return ticks;
}

function drawLatency() {
  const entries = data.latency, rows = entries.map((_, i) => i), small = narrow();
  const several = new Set(entries.map((t) => t.engine + t.device)).size > 1;
  const label = (t) => (small ? t.place.replace(", ", "<br>") : t.place) + (several ? " · " + safe(t.engine) : "") + " ";
  const trace = (name, key, colour, shift, symbol) => ({
    type: "scatter", mode: "markers", name, x: entries.map((t) => t[key + "_ms"]), y: rows.map((i) => i + shift),
    error_x: {
      type: "data", symmetric: false, color: colour, thickness: 2, width: 5,
      array: entries.map((t) => Math.max(0, t[key + "_spread_ms"][1] - t[key + "_ms"])),
      arrayminus: entries.map((t) => Math.max(0, t[key + "_ms"] - t[key + "_spread_ms"][0])),
    },
    marker: { size: 11, color: colour, symbol },
    hovertext: entries.map((t) => t.place + ", " + safe(t.engine) + " on " + safe(t.device) + "<br>" + name + ": " +
      number(t[key + "_ms"]) + " ms (" + t[key + "_spread_ms"].map(number).join(" – ") + ")<br>" + t.repeats + " repeats"),
    hoverinfo: "text",
  });
  const all = entries.flatMap((t) => [t.base_spread_ms[0], t.pruned_spread_ms[0], t.base_spread_ms[1], t.pruned_spread_ms[1]]);
  const log = Math.min(...all) > 0 && Math.max(...all) > 8 * Math.min(...all);
  const ratios = entries.map((t, i) => ({
    xref: "paper", x: 1, xanchor: "right", y: i, yref: "y", showarrow: false, text: "<b>" + t.ratio.toFixed(2) + "×</b>", font: { size: 14 },
  }));
  const ends = [Math.min(...all), Math.max(...all)];
  const span = log ? [Math.log10(ends[0]) - 0.06, Math.log10(ends[1])] : [0, ends[1]];
  react("latency", [
    trace("base", "base", ink("base"), -0.13, "circle"), trace("pruned", "pruned", ink("kept"), 0.13, "square"),
  ], {
    height: 110 + 54 * entries.length, showlegend: true, margin: { t: 34, b: 46 }, annotations: ratios,
    xaxis: {
      title: { text: "milliseconds a batch" + (log ? " (logarithmic)" : "") }, type: log ? "log" : "linear", ...(log ? { tickvals: decades(...ends, small ? [1] : [1, 2, 5]) } : {}),
      range: [span[0], span[1] + (small ? 0.3 : 0.12) * (span[1] - span[0])],
    },
    yaxis: { range: [entries.length - 0.5, -0.5], tickvals: rows, ticktext: entries.map(label), showgrid: false, tickfont: { size: 12, color: ink("ink") } },
  });
}

if (data.stages.length) drawing(drawStages);
if (groups.length && byId("overview")) {
  const sizes = groups.map((g) => g.size);
  if (Math.max(...sizes) > 8 * Math.min(...sizes)) {
    state.scale = "share";
    for (const button of byId("scale").querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.value === "share"));
  }
  drawing(drawOverview);
  toggle("scale", (value) => { state.scale = value; drawOverview(); });
}
if (data.latency.length) drawing(drawLatency);
