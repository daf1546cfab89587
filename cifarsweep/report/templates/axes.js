"use strict";
// Axes: from values to places between 0 and 1 and back, the ticks, and what a brush along an axis says as a condition.

const FEW = 12; // levels of numbers that a brush is put to: 0.01 <= lr, not 0.0083 <= lr
const MARGIN = 0.04;

const bounds = (values) => {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [Number(low), Number(high)];
};

// What is shown at a tick is the value times `factor`; `levels` are the values that there are, in order.
class NumberAxis {
  constructor([low, high], {isLog = false, isWhole = false, factor = 1, levels = []} = {}) {
    if (!Number.isFinite(low) || !Number.isFinite(high)) [low, high, isLog] = [0, 1, false];
    Object.assign(this, {isLog, isWhole, factor, levels});
    [this.start, this.end] = [low, high].map((value) => (isLog ? Math.log10(value) : value));
    const margin = this.end > this.start ? MARGIN * (this.end - this.start) : isLog ? 0.3 : Math.abs(low) / 10 || 1;
    this.start -= margin;
    this.end += margin;
  }

  place(value) {
    if (value === null) return NaN;
    const place = ((this.isLog ? Math.log10(Number(value)) : Number(value)) - this.start) / (this.end - this.start);
    return Number.isFinite(place) ? place : NaN;
  }

  value(place) {
    const at = this.start + place * (this.end - this.start);
    return this.isLog ? 10 ** at : at;
  }

  // About so many places, with their texts.
  ticks(most) {
    const [low, high] = [this.value(0) * this.factor, this.value(1) * this.factor];
    const isFew = this.levels.length > 0 && this.levels.length <= most;
    const values = isFew ? this.levels.map((level) => Number(level) * this.factor)
      : this.isLog && this.end - this.start > 0.8 ? this.decades(most) : steps(low, high, most, this.isWhole);
    const one = new Intl.NumberFormat("en", {notation: Math.max(-low, high) >= 1e4 ? "compact" : "standard", maximumSignificantDigits: 4});
    return values
      .map((value) => ({place: this.place(value / this.factor), text: Math.abs(value) < 1e-4 && value ? value.toExponential() : one.format(value)}))
      .filter(({place}) => place >= 0 && place <= 1);
  }

  decades(most) {
    const [first, last] = [Math.floor(this.start), Math.ceil(this.end)];
    const every = Math.ceil((last - first) / most);
    const mantissas = 3 * (last - first) <= most + 2 ? [1, 2, 5] : [1];
    const values = [];
    for (let decade = first; decade <= last; decade += every) values.push(...mantissas.map((one) => Number(`${one}e${decade}`) * this.factor));
    return values;
  }

  between(key, [from, to]) {
    const {levels} = this;
    const inside = levels.filter((level) => this.place(level) >= from && this.place(level) <= to);
    if (inside.length === 1) return [{key, sign: "=", values: [String(inside[0])]}];
    const ends = inside.length && (levels.length <= FEW || this.isWhole) ? [inside[0], inside.at(-1)] : [this.rounded(from), this.rounded(to)];
    return ends.map((end, at) => ({key, sign: at ? "<=" : ">=", values: [String(end)]}));
  }

  // With no more digits than a reader can point at.
  rounded(place) {
    const value = this.value(place);
    const step = Math.abs(this.value(place + 0.002) - value);
    return Number(value.toFixed(Math.min(100, Math.max(0, Math.ceil(-Math.log10(step))))));
  }

  // The stretches of the axis for which these comparisons of its column hold.
  stretches(comparisons) {
    let [from, to] = [0, 1];
    for (const {sign, values} of comparisons) {
      const places = values.map((value) => this.place(conditions.number(value))).filter((place) => !Number.isNaN(place));
      if (sign === "=" && places.length) return places.map((place) => [place - 0.01, place + 0.01]);
      if (sign.startsWith(">")) from = Math.max(from, ...places);
      if (sign.startsWith("<")) to = Math.min(to, ...places);
    }
    return from < to ? [[from, to]] : [];
  }
}

const steps = (low, high, most, isWhole) => {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max([1, 2, 5, 10].find((one) => one * power >= rough) * power, isWhole ? 1 : 0);
  const first = Math.ceil(low / step);
  return Array.from({length: Math.max(0, Math.floor(high / step) - first + 1)}, (_, at) => Number(((first + at) * step).toPrecision(12)));
};

// Texts have a place each, in order.
class LevelAxis {
  constructor(column) {
    this.column = column;
    this.places = new Map(column.levels.map((level, at) => [level, (at + 0.5) / column.levels.length]));
  }

  place(value) {
    return this.places.get(value) ?? NaN;
  }

  ticks(most) {
    const every = Math.ceil(this.column.levels.length / Math.max(most, 8));
    return [...this.places].filter((_, at) => at % every === 0).map(([level, place]) => ({place, text: this.column.text(level)}));
  }

  between(key, [from, to]) {
    const {levels} = this.column;
    const inside = levels.filter((level) => this.place(level) >= from && this.place(level) <= to);
    if (!inside.length) inside.push(levels.find((level) => this.place(level) + 0.5 / levels.length >= (from + to) / 2));
    const values = inside.map((level) => (typeof level === "boolean" ? String(level) : conditions.exactly(level)));
    return [{key, sign: "=", values}];
  }

  stretches(comparisons) {
    if (!comparisons.length) return [];
    const half = 0.5 / this.column.levels.length;
    const kept = this.column.levels.filter((level) => comparisons.every((comparison) => conditions.holds(comparison, () => level)));
    return kept.map((level) => [this.place(level) - half, this.place(level) + half]);
  }
}

// The axis of a column over some of the runs; over all of them it is made once.
const axisOf = (column, runs, all) => {
  if (!column.isNumber) return new LevelAxis(column);
  if (runs === all && column.axis?.isLog === column.isLog) return column.axis;
  const values = function* () {
    for (const run of runs) {
      const value = column.at(run);
      if (value !== null && (!column.isLog || value > 0)) yield value;
    }
  };
  const axis = new NumberAxis(bounds(runs === all ? column.levels.filter((value) => !column.isLog || value > 0) : values()), column);
  if (runs === all) column.axis = axis;
  return axis;
};
