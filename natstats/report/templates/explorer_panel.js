// The panel of one layer. Everything is put in as text, whatever a layer is called.

function element(tag, text, more) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) { made.textContent = text; }
  return Object.assign(made, more);
}

function rowsTable(caption, heads, rows, isText) {
  const table = element("table", null, { className: "plain" });
  table.createCaption().textContent = caption;
  const head = table.createTHead().insertRow();
  heads.forEach(function (text, place) {
    head.append(element("th", text, { scope: "col", className: isText(place) ? "" : "n" }));
  });
  const body = table.createTBody();
  rows.forEach(function (row) {
    const line = body.insertRow();
    row.forEach(function (text, place) {
      line.append(place ? element("td", text, { className: isText(place) ? "" : "n" }) :
        element("th", text, { scope: "row" }));
    });
  });
  return table;
}

function titled(panel, title, text) {
  panel.append(element("h4", title));
  if (text) { panel.append(element("p", text, { className: "beside" })); }
}

function plotPlace(panel, label) {
  const place = element("div", null, { className: "plot" });
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", label);
  panel.append(place);
  return place;
}

// The operations that lead to a layer from the one before, a bar for every share.
function accountTable(rows) {
  const table = rowsTable("What the exponent changes by, from the layer before",
    ["operation", "cause", "change"],
    rows.map(function (row) { return row.slice(0, 3); }), function (place) { return place < 2; });
  table.classList.add("account");
  const most = Math.max.apply(null, rows.map(function (row) { return Math.abs(row[3]); })) || 1;
  rows.forEach(function (row, place) {
    const bar = element("span", null, { className: row[3] < 0 ? "bar down" : "bar" });
    bar.style.width = Math.round(48 * Math.abs(row[3]) / most) + "px";
    table.tBodies[0].rows[place].cells[2].prepend(bar);
  });
  return table;
}

function showLayer(panel, data, layer, Plotly, step) {
  if (Plotly) { panel.querySelectorAll(".plot").forEach(function (one) { Plotly.purge(one); }); }
  const hadFocus = panel.contains(document.activeElement) ? document.activeElement.dataset.step : null;
  panel.replaceChildren();
  panel.hidden = layer === null || !Plotly;
  if (panel.hidden) { return; }
  const look = colours();
  const buttons = element("p", null, { className: "steps" });
  [["← before", "-1"], ["next →", "1"]].forEach(function (one) {
    const button = element("button", one[0], { type: "button" });
    button.dataset.step = one[1];
    button.addEventListener("click", function () { step(Number(one[1])); });
    buttons.append(button);
  });
  const title = element("h3", null, { tabIndex: -1 });
  layer.name.split(/(?<=\.)/).forEach(function (part, place) {  // a name breaks behind its dots
    title.append(place ? document.createElement("wbr") : "", part);
  });
  const told = element("p", layer.summary, { className: "summary" });
  told.append(element("span", " " + layer.kind + ", " + layer.stage));
  const said = element("div");
  said.setAttribute("aria-live", "polite");
  said.append(title, told);
  panel.append(buttons, element("p", null, { className: "standing", hidden: true }), said);
  if (layer.flags.length) {
    const flags = element("p");
    layer.flags.forEach(function (flag) {
      flags.append(element("span", flag, { className: "flag" }), " ");
    });
    panel.append(flags);
  }
  if (layer.spectrum) {
    drawLayerSpectrum(Plotly, plotPlace(panel, "spectrum of " + layer.name + " with its fit: " +
      layer.summary), data, layer, look);
  } else {
    panel.append(element("p", "This layer has no spectrum that can be drawn.", { className: "beside" }));
  }
  if (layer.control) { titled(panel, "What training did", layer.control); }
  if (layer.account.length) {
    titled(panel, "Where the exponent comes from");
    panel.append(accountTable(layer.account));
  }
  if (layer.forms.length) {
    titled(panel, "Is it a power law?");
    const table = rowsTable("Forms fitted to this spectrum", ["form", "α", "parameters",
      "AICc above the best"], layer.forms, function (place) { return place === 0 || place === 2; });
    Array.from(table.tBodies[0].rows).forEach(function (row, place) {
      row.classList.toggle("best", layer.forms[place][0] === layer.best);
    });
    table.classList.add("forms");
    panel.append(element("p", "Fitted by least squares in a few bins of rings; the exponent above is " +
      "by the estimator of the run, and differs most where the spectrum is no power law.",
      { className: "beside" }));
    panel.append(table);
  }
  if (Object.keys(layer.bands).length) {
    drawBands(Plotly, plotPlace(panel, "exponent of " + layer.name + " in narrower bands"), data,
      layer, look);
    panel.append(element("p", "A power law has the same exponent in every band.",
      { className: "beside" }));
  }
  if (layer.spread) {
    titled(panel, "From image to image", layer.spread.text);
    drawSpread(Plotly, plotPlace(panel, "exponents of single images in " + layer.name), layer, look);
  }
  const facts = element("dl", null, { className: "facts" });
  layer.facts.forEach(function (pair) {
    const one = element("div");
    one.append(element("dt", pair[0]), element("dd", pair[1]));
    facts.append(one);
  });
  titled(panel, "More numbers");
  panel.append(facts);
  const again = hadFocus && panel.querySelector("[data-step='" + hadFocus + "']");
  if (again) { again.focus(); }
}
