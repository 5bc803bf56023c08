// Tables that can be sorted, and filtered by what stands in the field above them.

// Up, down, and back to the order in which the rows came.
const NEXT = { none: "ascending", ascending: "descending", descending: "none" };

// A cell sorts by its number; without one, in a column of numbers, it comes last both ways.
function sortKey(row, column, isNumber) {
  const cell = row.cells[column];
  if (!isNumber) { return cell.textContent; }
  return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
}

// Returns a function that sorts by a column; `changed` is told of what a reader asks for.
function makeSortable(table, changed) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[0].cells);

  function sort(column, direction) {
    const isNumber = column >= 0 && heads[column].classList.contains("n");
    const order = direction === "none" ? rows.slice() : rows.slice().sort(function (one, other) {
      const a = sortKey(one, column, isNumber), b = sortKey(other, column, isNumber);
      if (a === null || b === null) { return (a === null) - (b === null); }
      const difference = isNumber ? a - b : a.localeCompare(b, "en", { numeric: true });
      return direction === "ascending" ? difference : -difference;
    });
    order.forEach(function (row) { body.appendChild(row); });
    heads.forEach(function (head, place) {
      head.setAttribute("aria-sort", place === column ? direction : "none");
    });
  }

  heads.forEach(function (head, column) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.textContent = "";
    head.appendChild(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", function () {
      const direction = NEXT[head.getAttribute("aria-sort")];
      sort(column, direction);
      if (changed) { changed(column, direction); }
    });
  });
  return sort;
}

// A page that is shown inside another one has no address of its own.
function setAddress(address, isNew) {
  if (location.protocol === "about:") { return; }
  history[isNew ? "pushState" : "replaceState"](null, "", address);
}

function hasWords(text, words) {
  text = text.toLowerCase();
  return words.toLowerCase().split(/\s+/).filter(Boolean).every(function (word) {
    return text.includes(word);
  });
}

// A table in which a reader chooses columns, order and rows; `changed` is told when that was done.
//
// Columns that are always there, and on a wide screen as many of some others as it has room for, are
// the usual ones. What was chosen is put into an address by `keep`, and taken from it by `restore`.
function makeTable(box, changed) {
  const table = box.querySelector("table"), scroll = table.parentNode;
  const tools = box.querySelector(".tools");
  const rows = Array.from(table.tBodies[0].rows);
  const heads = Array.from(table.tHead.rows[0].cells);
  const keys = heads.map(function (head) { return head.dataset.key; });
  const input = tools.querySelector("input[type=search]"), count = tools.querySelector("output");
  const download = tools.querySelector(".download");
  const hiding = document.head.appendChild(document.createElement("style"));
  const none = document.createElement("p");
  none.className = "none";
  none.textContent = "No row matches the filter.";
  none.hidden = true;
  const swipe = document.createElement("p");
  swipe.className = "swipe";
  swipe.textContent = "Swipe or scroll the table sideways to see all of it.";
  swipe.hidden = true;
  scroll.after(none, swipe);
  const isWide = window.matchMedia("(min-width: 40rem)");
  let usual = [], columns = [], order = "";

  // --- columns ---------------------------------------------------------------------------------

  function show(shown) {
    columns = shown.slice();
    const hidden = [];
    columns.forEach(function (on, place) {
      boxes[place].checked = on;
      if (!on) { hidden.push("#" + table.id + " tr > :nth-child(" + (place + 1) + ")"); }
    });
    hiding.textContent = hidden.length ? "@media screen {" + hidden.join(",") + " {display: none} }" : "";
    swipe.hidden = scroll.scrollWidth <= scroll.clientWidth;
  }

  function isUsual() {
    return columns.every(function (on, place) { return on === usual[place]; });
  }

  // The usual columns: of those that need a wide screen as many as it has room for. The last ones
  // that it needs room for go first.
  function fit() {
    const wasUsual = isUsual(), chosen = columns;
    const needs = heads.map(function (head) { return head.dataset.first; });
    usual = needs.map(function (need) { return need === "always" || (isWide.matches && Boolean(need)); });
    show(usual);
    ["room", "wide"].forEach(function (need) {
      for (let place = heads.length - 1; place > 0 && scroll.scrollWidth > scroll.clientWidth; place -= 1) {
        if (usual[place] && needs[place] === need) {
          usual[place] = false;
          show(usual);
        }
      }
    });
    if (!wasUsual) { show(chosen); }
  }

  function choose(shown) {
    show(shown);
    changed();
  }

  const boxes = heads.map(function (head, place) {
    const label = document.createElement("label"), own = document.createElement("input");
    own.type = "checkbox";
    own.disabled = place === 0;
    label.title = head.title;
    label.append(own, " " + head.textContent.trim());
    tools.querySelector(".choices").append(label);
    own.addEventListener("change", function () {
      choose(columns.map(function (on, other) { return other === place ? own.checked : on; }));
    });
    return own;
  });
  tools.querySelector(".usual").addEventListener("click", function () { choose(usual); });
  tools.querySelector(".all").addEventListener("click", function () {
    choose(keys.map(function () { return true; }));
  });

  // --- order and rows --------------------------------------------------------------------------

  const sort = makeSortable(table, function (column, direction) {
    order = direction === "none" ? "" : keys[column] + ":" + direction;
    changed();
  });

  function filter(isShown) {
    rows.forEach(function (row, place) { row.hidden = !isShown(place); });
    const shown = rows.filter(function (row) { return !row.hidden; }).length;
    none.hidden = shown > 0 || !rows.length;
    return shown + " of " + rows.length + " rows";
  }

  function filterByWords() {
    if (!input) { return; }
    count.textContent = filter(function (place) {
      return hasWords(rows[place].textContent, input.value);
    });
  }
  if (input) {
    input.addEventListener("input", function () { filterByWords(); changed(); });
  }

  // The rows that are shown, in their order, as the file beside the page has them.
  if (download) {
    const data = JSON.parse(box.querySelector("script.csv").textContent);
    download.addEventListener("click", function () {
      const lines = Array.from(table.tBodies[0].rows).filter(function (row) { return !row.hidden; })
        .map(function (row) { return data.rows[rows.indexOf(row)]; });
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([[data.head].concat(lines, "").join("\n")], { type: "text/csv" }));
      link.download = data.file;
      link.click();
      setTimeout(function () { URL.revokeObjectURL(link.href); }, 1000);
    });
  }

  // --- the address -----------------------------------------------------------------------------

  function keep(kept, before) {
    if (order) { kept.set(before + "sort", order); }
    if (input && input.value) { kept.set(before + "filter", input.value); }
    if (!isUsual()) {
      // A head may have a comma in it.
      kept.set(before + "columns", keys.filter(function (_, place) { return columns[place]; })
        .map(function (key) { return key.includes(",") ? encodeURIComponent(key) : key; }).join(","));
    }
  }

  function restore(kept, before) {
    const asked = kept.get(before + "columns"), sorting = kept.get(before + "sort") || "";
    const end = sorting.lastIndexOf(":"), direction = sorting.slice(end + 1);
    const column = keys.indexOf(sorting.slice(0, end));
    const isOrder = column >= 0 && direction !== "none" && Object.keys(NEXT).includes(direction);
    order = isOrder ? sorting : "";
    sort(column, isOrder ? direction : "none");
    const listed = asked === null ? [] : asked.split(",");
    show(asked === null ? usual : keys.map(function (key, place) {
      return place === 0 || listed.includes(key) || listed.includes(encodeURIComponent(key));
    }));
    if (input) {
      input.value = kept.get(before + "filter") || "";
      filterByWords();
    }
  }

  tools.hidden = false;
  fit();
  filterByWords();
  let width = scroll.clientWidth;
  new ResizeObserver(function () {
    if (scroll.clientWidth === width) { return; }
    width = scroll.clientWidth;
    fit();
    swipe.hidden = scroll.scrollWidth <= scroll.clientWidth;
  }).observe(scroll);
  return { table: table, rows: rows, filter: filter, keep: keep, restore: restore };
}

// Several tables, each with its own part of the address.
function makeTables(boxes, changed) {
  const tables = boxes.map(function (box) {
    return { own: makeTable(box, changed), before: box.dataset.key + "." };
  });
  return {
    keep: function (kept) { tables.forEach(function (one) { one.own.keep(kept, one.before); }); },
    restore: function (kept) { tables.forEach(function (one) { one.own.restore(kept, one.before); }); }
  };
}

// The tables of a page that has nothing else to keep in its address.
function keepTables(boxes) {
  const tables = makeTables(boxes, function () {
    const kept = new URLSearchParams();
    tables.keep(kept);
    setAddress(String(kept) ? "#" + kept : location.pathname + location.search, false);
  });
  // A link to a section changes nothing.
  function restore() {
    if (location.hash && !location.hash.includes("=")) { return; }
    tables.restore(new URLSearchParams(location.hash.slice(1)));
  }
  restore();
  window.addEventListener("popstate", restore);
}
