// The plots of the explorer: exponents against depth, spectra by map size, and those of a layer.

function hoverText(layer) {
  const lines = ["<b>" + shown(layer.name) + "</b>", shown(layer.summary),
    shown(layer.kind + ", " + layer.stage)];
  if (layer.flags.length) { lines.push(shown(layer.flags.join("; "))); }
  return lines.join("<br>");
}

function stroke(x, y, name, line, more) {
  return Object.assign({ type: "scatter", mode: "lines", x: x, y: y, name: name, line: line,
    hoverinfo: "skip" }, more);
}

// Bounds of a filled area: the lower one, and the upper one that fills down to it.
function area(x, low, high, name, colour, more) {
  const none = { width: 0 };
  return [
    stroke(x, low, name, none, Object.assign({ showlegend: false, legendgroup: name }, more)),
    stroke(x, high, name, none, Object.assign({ fill: "tonexty", fillcolor: colour,
      legendgroup: name }, more))
  ];
}

function lawTraces(law, look, level) {
  const traces = [];
  if (law.line) {
    const line = law.line;
    traces.push.apply(traces, area(line.x, line.low, line.high, level + " interval of the line",
      withAlpha(look.soft, 0.16)));
    traces.push(stroke(line.x, line.y, line.name,
      { color: look.ink, width: 1.5, dash: line.found ? "solid" : "dash" }));
  }
  if (law.shape) {
    traces.push(stroke(law.shape.x, law.shape.y, law.shape.name,
      { color: look.shape, width: 2, dash: law.line && law.line.found ? "dot" : "solid" }));
  }
  return traces;
}

function points(layers, name, colour, symbol, look) {
  function column(key) { return layers.map(function (layer) { return layer[key]; }); }
  return {
    type: "scatter", mode: "markers", name: name, x: column("x"), y: column("exponent"),
    customdata: column("place"), text: layers.map(hoverText), hovertemplate: "%{text}<extra></extra>",
    error_y: {
      type: "data", symmetric: false, color: colour, thickness: 1, width: 0,
      array: layers.map(function (one) { return one.high === null ? 0 : one.high - one.exponent; }),
      arrayminus: layers.map(function (one) { return one.low === null ? 0 : one.exponent - one.low; })
    },
    marker: {
      color: colour, size: 8, line: { width: 1.5, color: colour },
      symbol: layers.map(function (one) { return one.doubt ? symbol + "-open" : symbol; })
    }
  };
}

function drawLaw(Plotly, data, isShown, selected, look) {
  const place = document.getElementById("law-plot");
  const drawn = data.layers.filter(function (one) {
    return one.exponent !== null && one.x !== null;
  });
  const traces = lawTraces(data.law, look, data.level);
  const hidden = drawn.filter(function (one) { return !isShown(one); });
  if (hidden.length) {
    traces.push({ type: "scatter", mode: "markers", name: "filtered out", hoverinfo: "skip",
      x: hidden.map(function (one) { return one.x; }),
      y: hidden.map(function (one) { return one.exponent; }),
      marker: { color: withAlpha(look.soft, 0.3), size: 5 } });
  }
  const seen = drawn.filter(isShown);
  Object.keys(data.kinds).forEach(function (kind) {
    const own = seen.filter(function (one) { return one.kind === kind; });
    const mark = data.kinds[kind], colour = onPaper(mark.colour, look);
    if (own.length) { traces.push(points(own, shown(kind), colour, mark.symbol, look)); }
  });
  const inputs = seen.filter(function (one) { return one.kind === "input"; });
  if (inputs.length) { traces.push(points(inputs, "images", look.soft, "diamond-open", look)); }
  if (seen.some(function (one) { return one.doubt && one.kind !== "input"; })) {
    traces.push({ type: "scatter", mode: "markers", x: [null], y: [null], hoverinfo: "skip",
      name: "hollow: " + shown(data.doubts.join(", ")),
      marker: { symbol: "circle-open", size: 8, color: look.soft, line: { width: 1.5 } } });
  }
  const chosen = drawn.filter(function (one) { return one.place === selected; });
  traces.push({ type: "scatter", mode: "markers", showlegend: false, hoverinfo: "skip",
    x: chosen.map(function (one) { return one.x; }),
    y: chosen.map(function (one) { return one.exponent; }),
    marker: { symbol: "circle-open", size: 18, color: look.mark, line: { width: 2.5 } } });
  const values = drawn.flatMap(function (one) { return [one.low, one.high, one.exponent]; })
    .filter(function (value) { return value !== null; });
  const reach = withBand(Math.min.apply(null, values), Math.max.apply(null, values), data.law.line);
  const spare = 0.08 * (reach.high - reach.low) + 0.02;
  const marks = mapMarks(drawn, look, place.clientWidth);
  return draw(Plotly, place, traces, layout(look, {
    height: place.clientWidth < 500 ? 250 : 320, uirevision: "law", shapes: marks.shapes,
    annotations: marks.annotations,
    margin: { l: 8, r: 8, t: 26 },
    xaxis: axis(look, data.axis, { showgrid: false }),
    yaxis: axis(look, "exponent α", { range: [reach.low - spare, reach.high + spare] })
  }));
}

// The range of the points, and of the band of the line; a wide band is cut one range beyond them.
function withBand(low, high, line) {
  const ends = line ? line.low.concat(line.high).filter(Number.isFinite) : [];
  return { low: Math.max(Math.min.apply(null, ends.concat(low)), 2 * low - high),
    high: Math.min(Math.max.apply(null, ends.concat(high)), 2 * high - low) };
}

// Lines where maps change their size, and the size above where it has room.
function mapMarks(layers, look, width) {
  const inner = layers.filter(function (one) { return one.kind !== "input"; })
    .sort(function (one, other) { return one.x - other.x; });
  const runs = [];
  inner.forEach(function (one) {
    const last = runs[runs.length - 1];
    if (last && last.stage === one.stage) { last.end = one.x; }
    else { runs.push({ stage: one.stage, start: one.x, end: one.x }); }
  });
  const whole = Math.max(inner.length ? inner[inner.length - 1].x : 1, 1e-9);
  const shapes = [], annotations = [];
  if (runs.length > 20) { return { shapes: shapes, annotations: annotations }; }
  runs.forEach(function (one, place) {
    const before = runs[place - 1], after = runs[place + 1];
    const left = before ? (before.end + one.start) / 2 : one.start;
    const right = after ? (one.end + after.start) / 2 : one.end;
    const label = one.stage.replace(/^(\d+) × \1$/, "$1") + (annotations.length ? "" : " px");
    if (before) {
      shapes.push({ type: "line", xref: "x", yref: "paper", x0: left, x1: left, y0: 0, y1: 1,
        layer: "below", line: { color: look.line, width: 1 } });
    }
    if ((right - left) / whole * width * 0.85 > 7 * label.length + 4) {
      annotations.push({ xref: "x", yref: "paper", x: (left + right) / 2, y: 1, yanchor: "bottom",
        showarrow: false, text: label, font: { size: 11, color: look.soft } });
    }
  });
  return { shapes: shapes, annotations: annotations };
}

// Measured over fitted power, as a factor.
function ratios(spectrum, values) {
  return values.map(function (value, place) {
    const fit = spectrum.fit[place];
    return value === null || fit === null ? null : value / fit;
  });
}

function scaled(values, reach, sign) {
  return values.map(function (value, place) {
    const by = reach[place];
    return value === null || by === null ? null : value * Math.exp(sign * by);
  });
}

function drawSpectra(Plotly, data, isShown, selected, look, view) {
  const place = document.getElementById("spectra-plot");
  if (!place) { return null; }
  const stages = data.stages.map(function (stage) {
    return { stage: stage, layers: data.layers.filter(function (one) {
      return one.stage === stage && one.spectrum !== null && isShown(one);
    }) };
  }).filter(function (one) { return one.layers.length; });
  const nColumns = Math.max(1, Math.min(4, stages.length, Math.floor(place.clientWidth / 280)));
  const nRows = Math.max(1, Math.ceil(stages.length / nColumns));
  const isLeft = view === "left";
  const traces = [], axes = {}, annotations = [];
  const gap = { x: 0.16 / nColumns, y: 0.3 / nRows };
  stages.forEach(function (one, number) {
    const column = number % nColumns, row = Math.floor(number / nColumns);
    const tail = number ? String(number + 1) : "";
    const x0 = column / nColumns + gap.x / 2, x1 = (column + 1) / nColumns - gap.x / 2;
    const y1 = 1 - row / nRows - 0.03, y0 = 1 - (row + 1) / nRows + gap.y * 0.7;
    axes["xaxis" + tail] = logAxis(look, row === nRows - 1 || number + nColumns >= stages.length ?
      data.frequency : "", Object.assign({ domain: [x0, x1], anchor: "y" + tail, automargin: false },
        logTicks(one.layers.flatMap(function (layer) { return layer.spectrum.f; }))));
    axes["yaxis" + tail] = isLeft ?
      factorAxis(look, "", one.layers.flatMap(function (layer) {
        return ratios(layer.spectrum, layer.spectrum.power);
      }), { domain: [y0, y1], anchor: "x" + tail, automargin: false }) :
      logAxis(look, "", { domain: [y0, y1], anchor: "x" + tail, automargin: false,
        dtick: null, nticks: 5 });
    const n = one.layers.length;
    annotations.push({ xref: "paper", yref: "paper", x: x0, y: y1, xanchor: "left",
      yanchor: "bottom", showarrow: false, font: { size: 12, color: look.ink },
      text: "<b>" + shown(one.stage) + "</b> · " + n + (n === 1 ? " layer" : " layers") });
    one.layers.forEach(function (layer) {
      const spectrum = layer.spectrum, isChosen = layer.place === selected;
      traces.push({ type: "scatter", mode: "lines", showlegend: false, x: spectrum.f,
        y: isLeft ? ratios(spectrum, spectrum.power) : spectrum.power, xaxis: "x" + tail,
        yaxis: "y" + tail, customdata: spectrum.f.map(function () { return layer.place; }),
        text: hoverText(layer), hovertemplate: hoverText(layer) + "<extra></extra>",
        line: { color: layer.kind === "input" ? look.ink : onPaper(layer.colour, look),
          dash: layer.kind === "input" ? "dash" : "solid", width: isChosen ? 4 : 1.4 } });
    });
  });
  const narrow = place.clientWidth < 500;
  return draw(Plotly, place, traces, layout(look, Object.assign({
    height: nRows * (narrow ? 250 : 270), annotations: annotations, uirevision: view,
    showlegend: false, margin: { l: 36, r: 8, t: 22 }
  }, axes)));
}

// The layers before and behind, against which a spectrum is seen.
function neighbours(data, layer) {
  return [data.layers[layer.place - 1], data.layers[layer.place + 1]].filter(function (one) {
    return one && one.spectrum !== null;
  });
}

function drawLayerSpectrum(Plotly, place, data, layer, look) {
  const spectrum = layer.spectrum, mark = look.mark;
  const traces = [];
  neighbours(data, layer).forEach(function (one) {
    traces.push(stroke(one.spectrum.f, one.spectrum.power, "neighbours", { color: look.soft,
      width: 1, dash: "dot" }, { legendgroup: "neighbours", showlegend: !traces.length,
      hoverinfo: "all", hovertemplate: hoverText(one) + "<extra></extra>" }));
  });
  const tint = withAlpha(mark, 0.2), below = { yaxis: "y2", showlegend: false };
  traces.push.apply(traces, area(spectrum.f, scaled(spectrum.power, spectrum.shape, -1),
    scaled(spectrum.power, spectrum.shape, 1), data.level + " interval of the shape", tint));
  traces.push({ type: "scatter", mode: "lines+markers", x: spectrum.f, y: spectrum.power,
    name: "measured", line: { color: mark, width: 1.5 }, marker: { size: 4, color: mark },
    hovertemplate: "%{x:.3~g} " + data.frequency + "<br>relative power %{y:.3~g}<extra></extra>" });
  traces.push(stroke(spectrum.f, spectrum.fit, "fitted power law", { color: look.ink, width: 1.5 }));
  if (spectrum.form) {
    traces.push(stroke(spectrum.f, spectrum.form, "best form: " + shown(layer.best),
      { color: look.shape, width: 1.5, dash: "dash" }));
    traces.push(stroke(spectrum.f, ratios(spectrum, spectrum.form), "best form",
      { color: look.shape, width: 1.5, dash: "dash" }, below));
  }
  const left = ratios(spectrum, spectrum.power);
  traces.push.apply(traces, area(spectrum.f, scaled(left, spectrum.left, -1),
    scaled(left, spectrum.left, 1), "interval", tint, below));
  traces.push({ type: "scatter", mode: "lines+markers", x: spectrum.f, y: left, name: "measured ÷ fit",
    yaxis: "y2", showlegend: false, line: { color: mark, width: 1.5 },
    marker: { size: 4, color: mark },
    hovertemplate: "%{x:.3~g} " + data.frequency + "<br>measured ÷ fit %{y:.3~g}<extra></extra>" });
  return draw(Plotly, place, traces, layout(look, {
    height: 320,
    xaxis: logAxis(look, data.frequency, Object.assign({ anchor: "y2" }, logTicks(spectrum.f))),
    yaxis: logAxis(look, "relative power", { domain: [0.4, 1] }),
    yaxis2: factorAxis(look, "measured ÷ fit", left.concat(
      scaled(left, spectrum.left, -1), scaled(left, spectrum.left, 1)), { domain: [0, 0.32] }),
    shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, yref: "y2", y0: 1, y1: 1,
      line: { color: look.ink, width: 1 } }]
  }));
}

function drawBands(Plotly, place, data, layer, look) {
  const traces = [];
  const sides = { low: ["lower end raised", look.mark], high: ["upper end lowered", look.warm] };
  Object.keys(layer.bands).forEach(function (side) {
    const own = layer.bands[side], name = sides[side][0], colour = sides[side][1];
    traces.push.apply(traces, area(own.f, own.low, own.high, name, withAlpha(colour, 0.18),
      { showlegend: false }));
    traces.push({ type: "scatter", mode: "lines+markers", name: name, x: own.f, y: own.y,
      line: { color: colour, width: 1.5 }, marker: { size: 5, color: colour },
      hovertemplate: "end at %{x:.3~g} cycles/" + data.unit + "<br>α %{y:.3~f}<extra></extra>" });
  });
  return draw(Plotly, place, traces, layout(look, {
    height: 160,
    xaxis: logAxis(look, "moved end of the band, cycles/" + data.unit,
      logTicks(Object.values(layer.bands).flatMap(function (own) { return own.f; }))),
    yaxis: axis(look, "exponent α"),
    shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: layer.exponent, y1: layer.exponent,
      line: { color: look.soft, width: 1, dash: "dot" } }]
  }));
}

function drawSpread(Plotly, place, layer, look) {
  const spread = layer.spread;
  const middles = spread.counts.map(function (_, number) {
    return spread.start + (number + 0.5) * spread.step;
  });
  return draw(Plotly, place, [{ type: "bar", x: middles, y: spread.counts, width: spread.step,
    marker: { color: withAlpha(look.mark, 0.55), line: { color: look.paper, width: 1 } },
    hovertemplate: "α about %{x:.2f}: %{y} images<extra></extra>" }], layout(look, {
    height: 130, showlegend: false, bargap: 0, dragmode: false,
    margin: { l: 8, r: 8, t: 20 },
    xaxis: axis(look, "exponent α of an image by itself", { showgrid: false }),
    yaxis: axis(look, "images", { nticks: 4 }),
    shapes: [{ type: "line", yref: "paper", y0: 0, y1: 1, x0: layer.exponent, x1: layer.exponent,
      line: { color: look.warm, width: 2 } }],
    annotations: [{ yref: "paper", y: 1, yanchor: "bottom", x: layer.exponent, showarrow: false,
      text: "of the mean spectrum", font: { size: 11, color: look.soft } }]
  }));
}
