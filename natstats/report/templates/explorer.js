// The explorer: filters, table, panel and plots of a run, which all know the same layers.
function explore(box) {
  const data = JSON.parse(document.getElementById("run-data").textContent);
  data.layers.forEach(function (layer, place) { layer.place = place; });
  const table = makeTable(box, function () { remember(false); });
  const others = makeTables(Array.from(document.querySelectorAll(".choosable")).filter(function (one) {
    return one !== box;
  }), function () { remember(false); });
  const rows = table.rows;  // in the order of the layers
  const panel = document.getElementById("layer");
  const tools = document.getElementById("filters");
  const fields = { name: tools.querySelector("[name=name]"), kind: tools.querySelector("[name=kind]"),
    map: tools.querySelector("[name=map]"), flag: tools.querySelector("[name=flag]") };
  const count = tools.querySelector("output");
  const lawPlot = document.getElementById("law-plot");
  const state = { layer: null, view: "power", unknown: "" };
  const spectraPlot = document.getElementById("spectra-plot");
  let Plotly = null, spectraSeen = false;

  // --- what is shown ---------------------------------------------------------------------------

  function flagName(flag) { return flag.split(" (")[0]; }

  function isShown(layer) {
    return hasWords(layer.name, fields.name.value) &&
      (!fields.kind.value || layer.kind === fields.kind.value) &&
      (!fields.map.value || layer.stage === fields.map.value) &&
      (!fields.flag.value || (fields.flag.value === "none" ? !layer.flags.length :
        layer.flags.some(function (flag) { return flagName(flag) === fields.flag.value; })));
  }

  function filter() {
    count.textContent = table.filter(function (place) { return isShown(data.layers[place]); });
    tellPlace();
    drawAll();
  }

  function drawAll() {
    if (!Plotly) { return; }
    const look = colours();
    if (lawPlot) { drawLaw(Plotly, data, isShown, state.layer, look); }
    if (spectraSeen) { drawSpectra(Plotly, data, isShown, state.layer, look, state.view); }
  }

  // --- the address keeps the state -------------------------------------------------------------

  function address() {
    const kept = new URLSearchParams();
    if (state.layer !== null) { kept.set("layer", data.layers[state.layer].name); }
    Object.keys(fields).forEach(function (name) {
      if (fields[name].value) { kept.set(name, fields[name].value); }
    });
    if (state.view !== "power") { kept.set("view", state.view); }
    table.keep(kept, "");
    others.keep(kept);
    return "#" + kept;
  }

  function remember(isNew) {
    const next = address();
    if (next === location.hash) { return; }
    setAddress(next === "#" ? "#layers" : next, isNew);
  }

  // From the start of the page, and back to it, everything is as usual.
  function restore() {
    if (location.hash && !location.hash.includes("=")) { return; }
    const kept = new URLSearchParams(location.hash.slice(1));
    Object.keys(fields).forEach(function (name) { fields[name].value = kept.get(name) || ""; });
    table.restore(kept, "");
    others.restore(kept);
    state.view = kept.get("view") === "left" ? "left" : "power";
    showView();
    const name = kept.get("layer");
    const found = data.layers.find(function (layer) { return layer.name === name; });
    state.unknown = name !== null && !found ? name : "";
    open(found ? found.place : Plotly ? start() : null);
    filter();
  }

  // --- one layer -------------------------------------------------------------------------------

  rows.forEach(function (row, place) {
    const head = row.cells[0], button = document.createElement("button");
    button.type = "button";
    button.className = "open";
    button.append.apply(button, Array.from(head.childNodes));
    head.append(button);
    row.addEventListener("click", function () { select(place, true); });
  });

  // Links above the explorer: they keep what was filtered, and bring the layer into sight.
  document.querySelectorAll("a.to-layer").forEach(function (link) {
    link.addEventListener("click", function (event) {
      const name = new URLSearchParams(link.hash.slice(1)).get("layer");
      const found = data.layers.find(function (layer) { return layer.name === name; });
      if (!Plotly || !found || event.ctrlKey || event.metaKey || event.shiftKey) { return; }
      event.preventDefault();
      select(found.place, true);
      panel.querySelector("h3").focus({ preventScroll: true });
      (getComputedStyle(panel).position === "static" ? panel : panel.closest("section"))
        .scrollIntoView({ behavior: "smooth", block: "start" });
    });
  });

  function open(place) {
    state.layer = place;
    rows.forEach(function (row, number) { row.classList.toggle("chosen", number === place); });
    showLayer(panel, data, place === null ? null : data.layers[place], Plotly, step);
    tellPlace();
    drawAll();
  }

  // What a reader opens is kept in the address, and is what was asked for.
  function select(place, isNew) {
    if (isNew) { state.unknown = ""; }
    open(place);
    if (isNew) { remember(true); }
    // Beside the plot the panel is in sight; below it, on a narrow screen, it is brought there.
    if (isNew && getComputedStyle(panel).position === "static") {
      panel.scrollIntoView({ behavior: "smooth", block: "start" });
    }
  }

  // The layer before or behind among those that are shown, in the order of execution.
  function beside(by) {
    const seen = data.layers.filter(function (one) {
      return isShown(one) && (by > 0 ? one.place > state.layer : one.place < state.layer);
    });
    return by > 0 ? seen[0] : seen[seen.length - 1];
  }

  function step(by) {
    const next = beside(by);
    if (next) { select(next.place, true); }
  }

  // What the panel says of where it stands among the layers: no button leads nowhere.
  function tellPlace() {
    if (state.layer === null || panel.hidden) { return; }
    panel.querySelectorAll("[data-step]").forEach(function (button) {
      button.setAttribute("aria-disabled", beside(Number(button.dataset.step)) ? "false" : "true");
    });
    const told = [];
    if (state.unknown) { told.push("This page has no layer called " + state.unknown + "."); }
    if (!isShown(data.layers[state.layer])) { told.push("The filters leave out this layer."); }
    const place = panel.querySelector(".standing");
    place.textContent = told.join(" ");
    place.hidden = !told.length;
  }

  const STEPS = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
  if (lawPlot) {
    lawPlot.addEventListener("keydown", function (event) {
      const by = STEPS[event.key];
      if (by === undefined) {
        if (event.key === "Enter" && state.layer !== null) { panel.querySelector("h3").focus(); }
        return;
      }
      event.preventDefault();
      if (Number.isFinite(by)) { return step(by); }
      const seen = data.layers.filter(isShown);
      if (seen.length) { select(seen[by < 0 ? 0 : seen.length - 1].place, true); }
    });
  }

  // The layer that is open before a reader has chosen one.
  function start() {
    const first = data.layers.find(function (layer) { return layer.kind !== "input"; });
    return (first || data.layers[0] || { place: null }).place;
  }

  // --- start -----------------------------------------------------------------------------------

  const views = Array.from(document.querySelectorAll("[name=view]"));
  function showView() {
    views.forEach(function (one) { one.checked = one.value === state.view; });
  }
  views.forEach(function (one) {
    one.addEventListener("change", function () {
      state.view = one.value;
      remember(false);
      drawAll();
    });
  });
  Object.keys(fields).forEach(function (name) {
    fields[name].addEventListener("input", function () { filter(); remember(false); });
  });
  document.getElementById("clear").addEventListener("click", function () {
    Object.keys(fields).forEach(function (name) { fields[name].value = ""; });
    filter();
    remember(false);
  });

  tools.hidden = false;
  showView();
  restore();
  filter();

  return loadPlotly().then(function (found) {
    Plotly = found;
    document.documentElement.classList.add("has-plots");  // static figures make room, but for printing
    select(state.layer === null ? start() : state.layer, false);
    function opens(place) {
      if (!place || !place.on) { return; }
      place.on("plotly_click", function (event) { select(event.points[0].customdata, true); });
    }
    opens(lawPlot);
    // The spectra stand far below: they are drawn when a reader comes near.
    if (spectraPlot) {
      const near = new IntersectionObserver(function (entries) {
        if (!entries.some(function (entry) { return entry.isIntersecting; })) { return; }
        near.disconnect();
        spectraSeen = true;
        drawAll();
        opens(spectraPlot);
      }, { rootMargin: "600px" });
      near.observe(spectraPlot);
    }
    window.addEventListener("popstate", restore);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", function () {
      select(state.layer, false);
    });
    let width = panel.parentNode.clientWidth;
    new ResizeObserver(function () {
      if (panel.parentNode.clientWidth === width) { return; }
      width = panel.parentNode.clientWidth;
      select(state.layer, false);
    }).observe(panel.parentNode);
    document.documentElement.dataset.ready = "yes";
  });
}

const layerTable = document.getElementById("layer-choosable");
if (layerTable) { explore(layerTable).catch(function (error) { console.warn(String(error)); }); }
