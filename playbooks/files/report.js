"use strict";
// Sorting and filtering for the page of the report, which is complete without it.
(function () {
  const table = document.querySelector("table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const tools = document.getElementById("tools");
  const heads = Array.from(table.tHead.rows[0].cells);
  const order = ["critical", "expiring", "attention", "healthy"];

  function make(name, properties, parent) {
    const element = document.createElement(name);
    Object.assign(element, properties);
    parent.append(element);
    return element;
  }

  const search = make("input", { type: "search", placeholder: "Filter", ariaLabel: "Filter" }, tools);
  const boxes = order.map(function (bucket) {
    const label = make("label", {}, tools);
    const box = make("input", { type: "checkbox", checked: true, value: bucket }, label);
    label.append(" " + bucket);
    return box;
  });
  const count = make("output", {}, tools);
  const texts = rows.map((row) => row.textContent.toLowerCase());

  function show() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
    let number = 0;
    rows.forEach(function (row, index) {
      const fits = chosen.includes(row.cells[0].textContent.trim()) && words.every((word) => texts[index].includes(word));
      row.hidden = !fits;
      number += fits ? 1 : 0;
    });
    count.value = number + " of " + rows.length;
  }

  function key(row, column) {
    const text = row.cells[column].textContent.trim();
    if (column === 0) return order.indexOf(text);
    if (heads[column].dataset.number === undefined) return text.toLowerCase();
    return text === "" ? Infinity : Number(text);
  }

  function sort(column, down) {
    const keyed = Array.from(body.rows).map((row) => [key(row, column), row]);
    keyed.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0) * (down ? -1 : 1));
    body.append(...keyed.map((pair) => pair[1]));
  }

  heads.forEach(function (head, column) {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", function () {
      const down = head.ariaSort === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      sort(column, down);
    });
  });
  search.addEventListener("input", show);
  boxes.forEach((box) => box.addEventListener("change", show));
  show();
})();
