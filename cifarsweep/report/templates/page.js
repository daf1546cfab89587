"use strict";
(() => {
  const table = document.getElementById("table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const headings = [...table.tHead.rows[0].cells];
  const collator = new Intl.Collator(undefined, {numeric: true});

  // A key that compares: numbers by value, the rest as text; an empty cell comes last either way.
  const key = (row, column, isNumber) => {
    const text = row.cells[column].textContent.trim();
    return text === "" ? null : isNumber ? Number(text) : text;
  };

  const sort = (column, descending) => {
    const isNumber = headings[column].classList.contains("n");
    const compare = isNumber ? (a, b) => a - b : collator.compare;
    const keyed = rows.map((row, place) => [key(row, column, isNumber), place, row]);
    keyed.sort(([a, i], [b, j]) => {
      if (a === null || b === null) return (a === null) - (b === null) || i - j;
      return (descending ? compare(b, a) : compare(a, b)) || i - j;
    });
    body.append(...keyed.map(([, , row]) => row));
    headings.forEach((heading, at) => {
      if (at === column) heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
    });
  };

  headings.slice(0, -1).forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => {
      const sorted = heading.getAttribute("aria-sort");
      const first = heading.classList.contains("n") ? "descending" : "ascending"; // of numbers the best, of names a to z
      sort(column, sorted ? sorted === "ascending" : first === "descending");
    });
    heading.append(button);
  });

  const input = document.getElementById("filter");
  const shown = document.getElementById("shown");
  const texts = rows.map((row) => [...row.cells].slice(0, -1).map((cell) => cell.textContent).join(" ").toLowerCase());

  const keys = headings.map((heading) => heading.dataset.key);
  const values = JSON.parse(table.dataset.values); // the same in each row, by key
  const typed = (text, isNumber) =>
    text === "" ? null : isNumber ? conditions.number(text) : ["True", "False"].includes(text) ? text === "True" : text;
  const isOfNumbers = (key) => values[key]?.isNumber ?? headings[keys.indexOf(key)].classList.contains("n");
  const valueIn = (row, key) => {
    const cell = row.cells[keys.indexOf(key)];
    return typed(cell ? cell.dataset.value ?? cell.textContent.trim() : values[key].value, isOfNumbers(key));
  };
  const checkKey = (key) => {
    const known = [...keys.slice(0, -1), ...Object.keys(values)];
    if (!known.includes(key)) throw new Error(`${key}: no such column here, expected one of ${known.join(", ")}`);
  };

  // Whether a row has all these words, or what these conditions say.
  const wanted = (text) => {
    if (/[=<>]/.test(text)) {
      const holds = conditions.parse(text, checkKey, isOfNumbers);
      return (row) => holds((key) => valueIn(row, key));
    }
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    return (row, at) => words.every((word) => texts[at].includes(word));
  };

  const filter = () => {
    let isWanted = () => true;
    let problem = "";
    try {
      isWanted = wanted(input.value);
    } catch (error) {
      problem = error.message;
    }
    rows.forEach((row, at) => {
      row.hidden = !isWanted(row, at);
    });
    shown.textContent = problem || `${rows.filter((row) => !row.hidden).length} of ${rows.length} runs`;
    input.setAttribute("aria-invalid", String(problem !== ""));
  };
  input.addEventListener("input", filter);
  input.closest("[hidden]").hidden = false;
  filter();
})();
