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

function hasWords(text, words) {
  text = text.toLowerCase();
  return words.toLowerCase().split(/\s+/).filter(Boolean).every(function (word) {
    return text.includes(word);
  });
}

document.querySelectorAll(".sortable").forEach(function (table) {
  makeSortable(table);
  const rows = Array.from(table.tBodies[0].rows);
  const tools = table.parentNode.previousElementSibling;
  const input = tools.querySelector("input");
  const count = tools.querySelector("output");
  function filter() {
    rows.forEach(function (row) { row.hidden = !hasWords(row.textContent, input.value); });
    const shown = rows.filter(function (row) { return !row.hidden; }).length;
    count.textContent = shown + " of " + rows.length + " rows";
  }
  input.addEventListener("input", filter);
  tools.hidden = false;
  filter();
});
