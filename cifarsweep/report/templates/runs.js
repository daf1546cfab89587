"use strict";
// The runs of this page and what of them is shown: the filter, the chosen run, the colours. Figures and table listen to it.

const unpacked = async (id) => {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (character) => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
};

// An element with these properties and contents; texts stay texts.
const element = (name, properties = {}, contents = []) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...contents);
  return made;
};

const natural = new Intl.Collator(undefined, {numeric: true}); // layers9 before layers10
const PERCENT = {factor: 100, digits: 2};
const SHOWN_AS = {val_accuracy: PERCENT, test_accuracy: PERCENT, train_accuracy: PERCENT, train_seconds: {factor: 1, digits: 1}};
const LOG_FROM = 8; // a setting's axis is logarithmic at first where the largest value is so many times the smallest
const MOST_COLOURS = 8;

// One of runs.csv's columns; `at` gives the value of a run: a number, a text, a boolean or null.
class Column {
  constructor({key, title, isNumber, same, values}, count) {
    Object.assign(this, {key, title, isNumber, ...SHOWN_AS[key]});
    const read = (value) => (isNumber && typeof value === "string" ? conditions.number(value) : value);
    const known = values?.map(read) ?? read(same);
    this.varies = values !== undefined;
    this.at = this.varies ? (run) => known[run] : () => known;
    this.levels = [...new Set(this.varies ? known : [known])].filter((value) => value !== null);
    this.levels.sort(isNumber ? (a, b) => (a < b ? -1 : 1) : (a, b) => natural.compare(String(a), String(b)));
    this.isWhole = isNumber && this.levels.every((value) => typeof value === "bigint" || Number.isInteger(value));
    const [low, high] = [Number(this.levels[0]), Number(this.levels.at(-1))];
    this.canBeLog = isNumber && low > 0 && Number.isFinite(high);
    this.isLog = this.canBeLog && high / low >= LOG_FROM && !SHOWN_AS[key];
  }

  text(value) {
    if (value === null) return "";
    if (typeof value === "boolean") return value ? "True" : "False";
    if (!this.isNumber) return value.length > 60 ? `${value.slice(0, 59)}…` : value;
    if (this.digits) return (this.factor * value).toFixed(this.digits);
    return String(this.isWhole ? value : Number(value.toPrecision(4)));
  }

  compare(a, b) {
    return this.isNumber ? (a < b ? -1 : a > b ? 1 : 0) : natural.compare(String(a), String(b));
  }
}

// What has changed is one of: kept, chosen, pointed, look (the colours and the axes).
class Runs {
  constructor({columns, shown, settings, links, source, curves}) {
    this.count = links.length;
    this.columns = new Map(columns.map((column) => [column.key, new Column(column, this.count)]));
    Object.assign(this, {shown, settings, links, source, curves});
    this.all = Uint32Array.from(links.keys());
    this.kept = this.all;
    this.comparisons = []; // of the filter, as far as it is a condition
    this.problem = "";
    this.chosen = this.pointed = null;
    this.zoom = false; // whether axes span the kept runs alone
    this.brush = () => {}; // what a figure does with the comparisons of a brush
    this.listeners = [];
    this.colourBy(["model", "optimizer", "lr"].find((key) => this.columns.get(key)?.varies) ?? "status");
  }

  get varying() {
    return [...this.columns.values()].filter(({varies}) => varies);
  }

  value(run, key) {
    return this.columns.get(key).at(run);
  }

  tell(what) {
    this.listeners.forEach((listener) => listener(what));
  }

  // Keeps the runs that have all these words, or of which these conditions hold.
  filter(text) {
    this.comparisons = [];
    this.problem = "";
    try {
      if (/[=<>]/.test(text)) {
        const {comparisons, holds} = conditions.parse(text, (key) => this.check(key), (key) => this.columns.get(key).isNumber);
        this.comparisons = comparisons;
        this.kept = this.all.filter((run) => holds((key) => this.value(run, key)));
      } else {
        const words = text.toLowerCase().split(/\s+/).filter(Boolean);
        this.kept = words.length ? this.all.filter((run) => words.every((word) => this.words[run].includes(word))) : this.all;
      }
    } catch (error) {
      this.problem = error.message;
      this.kept = this.all;
    }
    this.isKept = new Uint8Array(this.count);
    for (const run of this.kept) this.isKept[run] = 1;
    this.others = this.all.filter((run) => !this.isKept[run]);
    this.tell("kept");
  }

  check(key) {
    if (!this.columns.has(key)) throw new Error(`${key}: no such column here, expected one of ${[...this.columns.keys()].join(", ")}`);
  }

  get words() {
    const columns = this.shown.map((key) => this.columns.get(key));
    const words = Array.from(this.all, (run) => columns.map((column) => column.text(column.at(run))).join(" ").toLowerCase());
    Object.defineProperty(this, "words", {value: words});
    return words;
  }

  // The filter's conditions with these in place of those on the same columns.
  conditionWith(comparisons) {
    const keys = new Set(comparisons.map(({key}) => key));
    return conditions.written([...this.comparisons.filter(({key}) => !keys.has(key)), ...comparisons]);
  }

  // `inFigure` where the reader's way goes on to the run's row.
  choose(run, inFigure = false) {
    Object.assign(this, {chosen: run, inFigure});
    this.tell("chosen");
  }

  point(run) {
    if (run === this.pointed) return;
    this.pointed = run;
    this.tell("pointed");
  }

  // Each level has a colour of its own; many numbers share a range of colours, other levels share the last colour.
  colourBy(key) {
    const column = this.columns.get(key);
    const isRange = column.isNumber && column.levels.length > MOST_COLOURS;
    const places = new Map(column.levels.map((level, place) => [level, place]));
    const last = isRange ? column.levels.length - 1 : MOST_COLOURS - 1;
    this.colours = {
      column,
      isRange,
      // 0 to 1 in a range, else the colour's number; null where the run has no value.
      of: (run) => {
        const place = places.get(column.at(run)) ?? null;
        return place === null ? null : isRange ? place / last : Math.min(place, last);
      },
    };
    this.tell("look");
  }

  // What a reader wants to know of a run first.
  facts(run) {
    const keys = ["run_id", "status", ...this.settings, "val_accuracy", "test_accuracy", "train_seconds"];
    return keys.map((key) => this.columns.get(key)).map((column) => [column.title, column.text(column.at(run))]).filter(([, text]) => text);
  }
}
