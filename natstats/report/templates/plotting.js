// The plotting library travels packed inside the page; it is unpacked once, when it is needed.
async function loadPlotly() {
  if (window.Plotly) { return window.Plotly; }
  const packed = document.getElementById("plotly").textContent.trim();
  const bytes = Uint8Array.from(atob(packed), function (char) { return char.charCodeAt(0); });
  const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(unpacked).text();
  document.head.append(script);
  return window.Plotly;
}

// On a screen that is touched a drag scrolls the page, and does not zoom by accident.
const TOUCHED = window.matchMedia("(pointer: coarse)").matches;

const CONFIG = {
  displaylogo: false, showSendToCloud: false, showTips: false,
  displayModeBar: TOUCHED ? false : "hover",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  toImageButtonOptions: { format: "svg" }
};

// Names are shown as they are: the library reads a few tags in texts.
function shown(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  function get(name) { return style.getPropertyValue(name).trim(); }
  return { ink: get("--ink"), soft: get("--soft"), line: get("--line"), paper: get("--paper"),
    mark: get("--mark"), shape: get("--shape"), warm: get("--accent") };
}

// Colours of our figures are made for white paper; on a dark one they are lightened.
function onPaper(hex, look) {
  const isDark = parseInt(look.paper.slice(1, 3), 16) < 128;
  if (hex === "#000000") { return look.ink; }
  if (!isDark) { return hex; }
  return "#" + [1, 3, 5].map(function (at) {
    const level = parseInt(hex.slice(at, at + 2), 16);
    return Math.round(level + 0.35 * (255 - level)).toString(16).padStart(2, "0");
  }).join("");
}

function withAlpha(hex, alpha) {
  const n = parseInt(hex.slice(1), 16);
  return "rgba(" + [n >> 16, (n >> 8) & 255, n & 255, alpha].join(",") + ")";
}

function axis(look, title, more) {
  return Object.assign({
    title: { text: title, standoff: 8 }, gridcolor: look.line, linecolor: look.soft,
    zeroline: false, automargin: true, ticks: "outside", ticklen: 3, tickcolor: look.soft
  }, more);
}

// Powers of ten as such, and no ticks that crowd between them.
function logAxis(look, title, more) {
  return axis(look, title, Object.assign({
    type: "log", dtick: 1, exponentformat: "power", minor: { ticks: "outside", ticklen: 2 }
  }, more));
}

function layout(look, more) {
  return Object.assign({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: look.ink },
    margin: { l: 8, r: 8, t: 8, b: 8 }, hovermode: "closest", dragmode: TOUCHED ? false : "zoom",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: look.soft, activecolor: look.ink, orientation: "v" },
    hoverlabel: { align: "left", bgcolor: look.paper, bordercolor: look.soft,
      font: { color: look.ink } }
  }, more);
}

// Rows that a legend over the whole width takes.
function legendRows(traces, width) {
  let rows = 1, used = 0;
  const seen = {};
  traces.forEach(function (one) {
    if (one.showlegend === false || seen[one.legendgroup]) { return; }
    if (one.legendgroup) { seen[one.legendgroup] = true; }
    const own = 52 + 6.6 * one.name.length;
    if (used && used + own > width - 40) { rows += 1; used = 0; }
    used += own;
  });
  return rows;
}

// Draws into a place: plots of `own.height`, and below them the axis and the legend.
function draw(Plotly, place, traces, own) {
  const width = place.clientWidth;
  if (!width) { return null; }  // not on the page, or no room at all
  const inner = own.height, below = 48;
  const room = own.showlegend === false ? 0 : 21 * legendRows(traces, width) + 6;
  own.width = width;
  own.height = inner + own.margin.t + below + room;
  own.margin = Object.assign({}, own.margin, { b: below + room });
  own.legend = { orientation: "h", x: 0, xanchor: "left", y: -below / inner,
    yanchor: "top", font: { size: 11.5 } };
  place.style.height = own.height + "px";
  return Plotly.react(place, traces, own, CONFIG);
}

const FACTORS = [[0.99, 1, 1.01], [0.95, 1, 1.05], [0.9, 1, 1.1], [0.8, 1, 1.25], [0.5, 1, 2],
  [0.3, 1, 3], [0.1, 1, 10], [0.01, 1, 100], [0.001, 1, 1000]];

// A logarithmic axis of factors about 1, with the widest ticks that are on it.
function factorAxis(look, title, values, more) {
  const reach = Math.max.apply(null, values.filter(function (value) { return value > 0; })
    .map(function (value) { return Math.abs(Math.log(value)); }).concat(0.012));
  const ticks = FACTORS.filter(function (one) { return Math.log(one[2]) <= reach; }).pop();
  return axis(look, title, Object.assign({ type: "log", tickvals: ticks,
    ticktext: ticks.map(String) }, more));
}
