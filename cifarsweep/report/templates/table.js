"use strict";
// The table of the runs that the filter keeps: pages, sorting by several columns, the choice of columns, CSV.

const ON_A_PAGE = 50;

class Table {
  constructor(runs, table) {
    Object.assign(this, {runs, table, keys: ["run_id", ...runs.shown], sorting: [], page: 0, order: runs.all});
    runs.listeners.push((what) => {
      if (what === "kept") this.show(0);
      if (what === "chosen") this.lead();
    });
    table.addEventListener("click", (event) => {
      const row = event.target.closest("tbody tr");
      if (row && !event.target.closest("a")) runs.choose(Number(row.dataset.run));
    });
  }

  get rows() {
    return this.order.filter((run) => this.runs.isKept[run]);
  }

  // The first click puts the best number or the first name on top, the second one the other end. With Shift, the
  // columns sorted by before come first.
  sort(key, isFurther) {
    const before = this.sorting.find((one) => one.key === key);
    const descending = before ? !before.descending : this.runs.columns.get(key).isNumber;
    if (!isFurther) this.sorting = [{key, descending}];
    else if (before) before.descending = descending;
    else this.sorting.push({key, descending});
    const columns = this.sorting.map((one) => [this.runs.columns.get(one.key), one.descending ? -1 : 1]);
    this.order = this.runs.all.toSorted((a, b) => {
      for (const [column, direction] of columns) {
        const [ofA, ofB] = [column.at(a), column.at(b)];
        const compared = ofA === null || ofB === null ? (ofA === null) - (ofB === null) : direction * column.compare(ofA, ofB);
        if (compared) return compared;
      }
      return a - b;
    });
    this.show(0);
  }

  show(page) {
    const rows = this.rows;
    this.numPages = Math.max(1, Math.ceil(rows.length / ON_A_PAGE));
    this.page = Math.min(Math.max(0, page), this.numPages - 1);
    const first = this.page * ON_A_PAGE;
    const shown = rows.slice(first, first + ON_A_PAGE);
    this.table.tHead.replaceChildren(this.heading());
    this.table.tBodies[0].replaceChildren(...Array.from(shown, (run) => this.row(run)));
    this.said = rows.length ? `rows ${first + 1} to ${first + shown.length} of ${rows.length}` : "no rows";
    this.table.dispatchEvent(new Event("shown"));
  }

  heading() {
    const row = document.createElement("tr");
    row.append(...this.keys.map((key) => {
      const column = this.runs.columns.get(key);
      const cell = element("th", {scope: "col", className: column.isNumber ? "n" : ""}, [element("button", {type: "button", title: `${key}: sorts; with Shift as a further column`}, [column.title])]);
      const at = this.sorting.findIndex((one) => one.key === key);
      if (at >= 0) {
        const [word, arrow] = this.sorting[at].descending ? ["descending", "▼"] : ["ascending", "▲"];
        if (at === 0) cell.ariaSort = word;
        cell.firstChild.append(` ${arrow}${this.sorting.length > 1 ? at + 1 : ""}`);
      }
      cell.dataset.key = key;
      cell.firstChild.addEventListener("click", (event) => {
        this.sort(key, event.shiftKey);
        this.table.querySelector(`th[data-key="${CSS.escape(key)}"] button`).focus();
      });
      return cell;
    }), element("th", {scope: "col"}, ["log"]));
    return row;
  }

  row(run) {
    const cells = this.keys.map((key) => {
      const column = this.runs.columns.get(key);
      const text = column.text(column.at(run));
      const content = key === "run_id" ? element("button", {type: "button", className: "link"}, [text]) : text;
      return element("td", {className: column.isNumber ? "n" : ""}, [content]);
    });
    const link = this.runs.links[run];
    cells.push(element("td", {}, link ? [element("a", {href: link, ariaLabel: `log of ${this.runs.value(run, "run_id")}`}, ["log"])] : []));
    const row = element("tr", {}, cells);
    row.dataset.run = run;
    if (run === this.runs.chosen) row.ariaCurrent = "true";
    return row;
  }

  // To the row of the run that was chosen in a figure.
  lead() {
    const {chosen, inFigure} = this.runs;
    if (inFigure && this.runs.isKept[chosen]) this.show(Math.floor(this.rows.indexOf(chosen) / ON_A_PAGE));
    for (const row of this.table.tBodies[0].rows) {
      if (Number(row.dataset.run) !== chosen) row.ariaCurrent = null;
      else {
        row.ariaCurrent = "true";
        if (inFigure) row.scrollIntoView({block: "center"});
      }
    }
  }

  // All columns of the rows, as runs.csv has them.
  csv() {
    const columns = [...this.runs.columns.values()];
    const cell = (value) => {
      const text = value === null ? "" : typeof value === "boolean" ? (value ? "True" : "False") : String(value);
      return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    const rows = Array.from(this.rows, (run) => columns.map((column) => cell(column.at(run))));
    return [columns.map(({key}) => cell(key)), ...rows].map((row) => `${row.join(",")}\n`).join("");
  }
}
