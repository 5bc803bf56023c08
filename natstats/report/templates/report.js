"use strict";
(function () {
  // Tables that can be sorted, and filtered by what stands in the field above them.
  function enhance(table) {
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    const heads = Array.from(table.tHead.rows[0].cells);

    // A cell sorts by its number; without one, in a column of numbers, it comes last both ways.
    function key(row, column, isNumber) {
      const cell = row.cells[column];
      if (!isNumber) { return cell.textContent; }
      return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
    }

    function sort(column, direction) {
      const isNumber = heads[column].classList.contains("n");
      const order = direction === "none" ? rows.slice() : rows.slice().sort(function (one, other) {
        const a = key(one, column, isNumber), b = key(other, column, isNumber);
        if (a === null || b === null) { return (a === null) - (b === null); }
        const difference = isNumber ? a - b : a.localeCompare(b, "en", { numeric: true });
        return direction === "ascending" ? difference : -difference;
      });
      order.forEach(function (row) { body.appendChild(row); });
      heads.forEach(function (head, place) {
        head.setAttribute("aria-sort", place === column ? direction : "none");
      });
    }

    // Up, down, and back to the order of execution.
    const next = { none: "ascending", ascending: "descending", descending: "none" };
    heads.forEach(function (head, column) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.textContent = "";
      head.appendChild(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", function () {
        sort(column, next[head.getAttribute("aria-sort")]);
      });
    });

    const tools = table.parentNode.previousElementSibling;
    const input = tools.querySelector("input");
    const count = tools.querySelector("output");
    function filter() {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach(function (row) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every(function (word) { return text.includes(word); });
        shown += row.hidden ? 0 : 1;
      });
      count.textContent = shown + " of " + rows.length + " rows";
    }
    input.addEventListener("input", filter);
    tools.hidden = false;
    filter();
  }
  document.querySelectorAll("#layer-table, .sortable").forEach(enhance);
}());
