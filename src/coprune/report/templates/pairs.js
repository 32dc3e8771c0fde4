// Mean attention maps of removed heads beside those that stand for them, each a canvas of as many dots as cells.
function rgb(name) {
  const value = ink(name);
  return [1, 3, 5].map((i) => parseInt(value.slice(i, i + 2), 16));
}

function drawHeat(canvas, levels, side) {
  const low = rgb("panel"), high = rgb("kept");
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d"), image = context.createImageData(side, side);
  // The square root keeps weak attention visible beside the strong.
  levels.forEach((level, i) => {
    const t = Math.sqrt(level / 99);
    image.data.set([...low.map((c, j) => Math.round(c + t * (high[j] - c))), 255], 4 * i);
  });
  context.putImageData(image, 0, 0);
}

function drawPairs() {
  byId("pairs").replaceChildren(...data.pairs.shown.map((pair) => {
    const figure = element("figure", undefined, "twins");
    const map = (head, levels, does) => {
      const part = element("div"), canvas = element("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", "Mean attention map of " + headName(...head) + ", " + does);
      drawHeat(canvas, levels, pair.side);
      part.append(canvas, element("div", headName(...head) + ": " + does, "under"));
      return part;
    };
    const r = pair.correlation;
    figure.append(map(pair.removed, pair.maps[0], "removed"), map(pair.kept, pair.maps[1], "kept"));
    if (r !== null) figure.append(element("figcaption", "Correlation of the two maps: " + r.toFixed(2).replace("-", "−")));
    return figure;
  }));
}

if (data.pairs.shown.length) drawing(drawPairs);
