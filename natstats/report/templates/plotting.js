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

const TICKS = [[1], [1, 3], [1, 2, 5], [1, 2, 3, 5, 7], [1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9]];

// Ticks of a logarithmic axis over these values: whole numbers, as few to the decade as give three.
function logTicks(values) {
  const known = values.filter(function (value) { return value > 0; });
  const low = Math.min.apply(null, known), high = Math.max.apply(null, known);
  const first = Math.floor(Math.log10(low)), last = Math.floor(Math.log10(high));
  let ticks = [];
  if (known.length) {
    TICKS.some(function (marks) {
      ticks = [];
      for (let power = first; power <= last; power += 1) {
        marks.forEach(function (mark) { ticks.push(Number((mark * Math.pow(10, power)).toPrecision(2))); });
      }
      ticks = ticks.filter(function (tick) { return tick >= 0.999 * low && tick <= 1.001 * high; });
      return ticks.length > 2;
    });
  }
  return { dtick: null, tickvals: ticks, ticktext: ticks.map(String), minor: { ticks: "" } };
}

const FACTORS = [1.01, 1.02, 1.05, 1.1, 1.25, 2, 3, 10, 100, 1000];

// A logarithmic axis of factors about 1: on each side the widest one that is on it and has room.
function factorAxis(look, title, values, more) {
  const logs = values.filter(function (value) { return value > 0; }).map(Math.log);
  const low = Math.min.apply(null, logs.concat(-0.012)), high = Math.max.apply(null, logs.concat(0.012));
  const room = 0.15 * (high - low);
  function widest(reach) {
    const ticks = FACTORS.filter(function (one) { return Math.log(one) <= reach; });
    const tick = ticks[ticks.length - 1];
    return tick && Math.log(tick) >= room ? tick : null;
  }
  const up = widest(high), down = widest(-low);
  const below = down && Number((1 / down).toPrecision(2));
  const ticks = [below, 1, up].filter(Boolean), spare = 0.05 * (high - low);
  return axis(look, title, Object.assign({ type: "log", tickvals: ticks, ticktext: ticks.map(String),
    range: [(low - spare) / Math.LN10, (high + spare) / Math.LN10] }, more));
}
