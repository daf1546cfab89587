"use strict";
// The figures of the runs, drawn by Bokeh: lines across axes side by side, two scatters, learning curves. A brush in one
// becomes the filter's condition. Each figure's axes go from 0 to 1; axes.js knows what that means.

const MOST_LINES = 250; // of runs, drawn at once
const PIXELS = 3; // points of one colour that are closer are drawn once
const REACH = 12; // pixels from the mouse to a point or line that it points at
const SMALLEST_BRUSH = 4; // pixels

const isDark = matchMedia("(prefers-color-scheme: dark)");
const named = new Map(); // colours of page.css, until the scheme changes
isDark.addEventListener("change", () => named.clear());
const colourNamed = (name) => {
  if (!named.has(name)) named.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return named.get(name);
};
const plain = (text) => new Bokeh.PlainText({text}); // no text of a run is read as a formula

// What colour a run has, by the column that the reader chose.
class Palette {
  constructor(colours) {
    this.colours = colours;
    const names = colours.isRange ? ["--range-0", "--range-1", "--range-2"] : Array.from({length: MOST_COLOURS}, (_, at) => `--colour-${at}`);
    const given = names.map(colourNamed);
    this.list = colours.isRange ? Array.from({length: 32}, (_, at) => blend(given, at / 31)) : given;
    this.none = colourNamed("--faint");
  }

  at(place) {
    return place === null ? this.none : this.list[this.colours.isRange ? Math.round(31 * place) : place];
  }

  of(run) {
    return this.at(this.colours.of(run));
  }
}

const blend = (colours, place) => {
  const at = Math.min(Math.floor(place * (colours.length - 1)), colours.length - 2);
  const [a, b] = [colours[at], colours[at + 1]].map((colour) => [1, 3, 5].map((from) => parseInt(colour.slice(from, from + 2), 16)));
  const part = place * (colours.length - 1) - at;
  return `#${a.map((one, channel) => Math.round(one + part * (b[channel] - one)).toString(16).padStart(2, "0")).join("")}`;
};

// At most so many, evenly from the first to the last.
const sample = (runs, most) => (runs.length <= most ? [...runs] : Array.from({length: most}, (_, at) => runs[Math.floor((at * runs.length) / most)]));

// Distance from a point to the line between two others.
const distance = (x, y, [x0, y0], [x1, y1]) => {
  const [dx, dy] = [x1 - x0, y1 - y0];
  const part = Math.min(1, Math.max(0, ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy || 1)));
  return Math.hypot(x - x0 - part * dx, y - y0 - part * dy);
};

// What the figures have in common: an empty plot whose axes go from 0 to 1, marks, and the reader's pointer.
class Figure {
  constructor(runs, element, height) {
    Object.assign(this, {runs, element, said: {}});
    this.plot = Bokeh.Plotting.figure({
      height, sizing_mode: "stretch_width", tools: [], toolbar_location: null, min_border: 8, lod_threshold: null,
      x_range: new Bokeh.Range1d({start: 0, end: 1}), y_range: new Bokeh.Range1d({start: 0, end: 1}),
      background_fill_color: null, border_fill_color: null, outline_line_color: null,
    });
    this.boxes = this.source("left", "right", "bottom", "top");
    this.plot.quad({field: "left"}, {field: "right"}, {field: "top"}, {field: "bottom"}, {source: this.boxes, name: "box"});
    const hit = ({x, y}) => this.nearest(x, y);
    this.plot.on_event("mousemove", (event) => runs.point(hit(event)));
    this.plot.on_event("mouseleave", () => runs.point(null));
    this.plot.on_event("tap", (event) => {
      const run = hit(event);
      if (run !== null) runs.choose(run, true);
    });
    runs.listeners.push((what) => {
      if (what !== "chosen" && what !== "pointed") this.update();
      else if (!this.isStale) this.mark();
    });
    isDark.addEventListener("change", () => this.update());
    this.isStale = true;
  }

  // Once the plot is on the page.
  begin() {
    new IntersectionObserver((entries) => {
      this.isInView = entries.at(-1).isIntersecting;
      if (this.isStale) this.update();
    }, {rootMargin: "200px"}).observe(this.element);
  }

  // A figure that is out of view is drawn once it comes into view: of 10,000 runs, all take longer than a reader waits.
  update() {
    this.isStale = !this.isInView;
    if (this.isInView) this.draw();
  }

  source(...names) {
    return new Bokeh.ColumnDataSource({data: Object.fromEntries(names.map((name) => [name, []]))});
  }

  get size() {
    return [this.plot.inner_width || 1, this.plot.inner_height || 1];
  }

  // Runs whose marks stand out: the chosen one and the one that the mouse points at.
  get marked() {
    return [...new Set([this.runs.chosen, this.runs.pointed])].filter((run) => run !== null);
  }

  get shownRuns() {
    return this.runs.zoom && this.runs.kept.length ? this.runs.kept : this.runs.all;
  }

  comparisonsOf(column) {
    return this.runs.comparisons.filter(({key}) => key === column.key);
  }

  brushable(brush) {
    const tool = new Bokeh.BoxSelectTool({renderers: []});
    Object.assign(tool.overlay, {fill_color: "#888888", fill_alpha: 0.25, line_color: "#888888"});
    this.plot.add_tools(tool);
    // On a touch screen the figure must scroll with the page.
    this.plot.toolbar.active_drag = matchMedia("(pointer: coarse)").matches ? null : tool;
    this.plot.on_event("selectiongeometry", ({geometry, final}) => {
      const {sx0, sx1, sy0, sy1} = geometry;
      if (final && Math.max(Math.abs(sx1 - sx0), Math.abs(sy1 - sy0)) >= SMALLEST_BRUSH) brush(geometry);
    });
  }

  setAxis(which, axis, title) {
    const isX = which === "x";
    const model = isX ? this.plot.below[0] : this.plot.left[0];
    const ticks = axis.ticks(isX ? Math.max(3, Math.min(9, Math.round(this.size[0] / 90))) : 6);
    const said = JSON.stringify([title, ticks]);
    if (this.said[which] === said) return; // new ticks lay the whole plot out again, which takes longer than all else
    this.said[which] = said;
    model.major_label_overrides = new Map(ticks.map(({place, text}) => [place, plain(text)]));
    model.ticker = new Bokeh.FixedTicker({ticks: ticks.map(({place}) => place)});
    this.plot.center[isX ? 0 : 1].ticker = model.ticker; // the grid's
    model.axis_label = plain(title);
  }

  paintFrame() {
    const [text, faint, line, accent] = ["--text", "--faint", "--line", "--accent"].map(colourNamed);
    if (this.ink === text) return;
    this.ink = text;
    const font = getComputedStyle(document.body).fontFamily;
    for (const axis of [...this.plot.below, ...this.plot.left]) {
      Object.assign(axis, {
        axis_label_text_color: text, major_label_text_color: faint, axis_line_color: line, major_tick_line_color: line,
        axis_label_text_font: font, major_label_text_font: font, axis_label_text_font_style: "normal", axis_label_text_font_size: "13px",
      });
    }
    for (const grid of this.plot.center) grid.grid_line_color = line;
    const {glyph} = this.plot.renderers.find(({name}) => name === "box");
    Object.assign(glyph, {fill_color: accent, fill_alpha: 0.15, line_color: accent});
  }
}

// A point a run. `x` and `y` are columns.
class Scatter extends Figure {
  constructor(runs, element, x, y) {
    super(runs, element, 340);
    Object.assign(this, {x, y, places: []});
    this.pale = this.source("x", "y");
    this.points = this.source("x", "y", "colour");
    this.marks = this.source("x", "y", "colour");
    const add = (source, style) => this.plot.scatter({field: "x"}, {field: "y"}, {source, line_color: null, ...style});
    this.paleMarks = add(this.pale, {size: 4});
    add(this.points, {size: 6, fill_color: {field: "colour"}, fill_alpha: 0.75});
    this.outlined = add(this.marks, {size: 12, fill_color: {field: "colour"}, line_width: 2, level: "overlay"});
    this.brushable(({x0, x1, y0, y1}) => {
      const brushed = [this.axes[0].between(this.x.key, [x0, x1]), this.axes[1].between(this.y.key, [y0, y1])];
      runs.brush(this.x === this.y ? brushed[1] : brushed.flat());
    });
  }

  draw() {
    this.paintFrame();
    this.axes = [this.x, this.y].map((column) => axisOf(column, this.shownRuns, this.runs.all));
    this.setAxis("x", this.axes[0], this.x.title);
    this.setAxis("y", this.axes[1], this.y.title);
    this.paleMarks.glyph.fill_color = colourNamed("--line");
    this.palette = new Palette(this.runs.colours);
    this.places = this.placed(this.runs.kept);
    this.points.data = this.thinned(this.places);
    const {x, y} = this.thinned(this.placed(this.runs.others), () => null);
    this.pale.data = {x, y};
    const [across, up] = [this.x, this.y].map((column, at) => [this.axes[at], this.comparisonsOf(column)])
      .map(([axis, comparisons]) => (comparisons.length ? axis.stretches(comparisons) : [[0, 1]]));
    const isBrushed = this.comparisonsOf(this.x).length + this.comparisonsOf(this.y).length > 0;
    const boxes = isBrushed ? across.flatMap(([left, right]) => up.map(([bottom, top]) => ({left, right, bottom, top}))) : [];
    this.boxes.data = Object.fromEntries(["left", "right", "bottom", "top"].map((name) => [name, boxes.map((box) => box[name])]));
    this.mark();
  }

  placed(runs) {
    return Array.from(runs, (run) => [run, this.axes[0].place(this.x.at(run)), this.axes[1].place(this.y.at(run))])
      .filter(([, x, y]) => x >= 0 && x <= 1 && y >= 0 && y <= 1);
  }

  // Without those that others of their colour cover.
  thinned(places, colourOf = this.runs.colours.of) {
    const [width, height] = this.size;
    const [seen, data] = [new Set(), {x: [], y: [], colour: []}];
    for (const [run, x, y] of places) {
      const colour = colourOf(run);
      const cell = `${Math.round((x * width) / PIXELS)} ${Math.round((y * height) / PIXELS)} ${colour}`;
      if (seen.has(cell)) continue;
      seen.add(cell);
      data.x.push(x);
      data.y.push(y);
      data.colour.push(this.palette.at(colour));
    }
    return data;
  }

  mark() {
    const places = this.placed(this.marked);
    this.outlined.glyph.line_color = colourNamed("--text");
    this.marks.data = {x: places.map(([, x]) => x), y: places.map(([, , y]) => y), colour: places.map(([run]) => this.palette.of(run))};
  }

  nearest(x, y) {
    const [width, height] = this.size;
    let [best, reach] = [null, REACH];
    for (const [run, ofX, ofY] of this.places) {
      const far = Math.hypot((ofX - x) * width, (ofY - y) * height);
      if (far < reach) [best, reach] = [run, far];
    }
    return best;
  }
}

// What figures of lines share: a line a run, pale ones for those that the filter leaves out.
class Lines extends Figure {
  constructor(runs, element, height) {
    super(runs, element, height);
    this.drawn = [];
    this.pale = this.source("xs", "ys");
    this.lines = this.source("xs", "ys", "colour");
    this.marks = this.source("xs", "ys", "colour");
    const add = (source, style) => this.plot.multi_line({field: "xs"}, {field: "ys"}, {source, ...style});
    this.paleMarks = add(this.pale, {line_width: 1});
    this.keptMarks = add(this.lines, {line_color: {field: "colour"}, line_alpha: 0.6, line_width: 1});
    add(this.marks, {line_color: {field: "colour"}, line_width: 3.5, level: "overlay"});
  }

  drawLines() {
    this.palette = new Palette(this.runs.colours);
    this.paleMarks.glyph.line_color = colourNamed("--line");
    this.drawn = sample(this.runs.kept, MOST_LINES).map((run) => ({run, ...this.lineOf(run)}));
    const pale = sample(this.runs.others, MOST_LINES / 4).map((run) => this.lineOf(run));
    this.pale.data = {xs: pale.map(({xs}) => xs), ys: pale.map(({ys}) => ys)};
    this.lines.data = this.coloured(this.drawn);
    this.mark();
  }

  coloured(lines) {
    return {xs: lines.map(({xs}) => xs), ys: lines.map(({ys}) => ys), colour: lines.map(({run}) => this.palette.of(run))};
  }

  mark() {
    this.marks.data = this.coloured(this.marked.map((run) => ({run, ...this.lineOf(run)})));
  }

  nearest(x, y) {
    const [width, height] = this.size;
    let [best, reach] = [null, REACH];
    for (const {run, xs, ys} of this.drawn) {
      for (let at = 1; at < xs.length; at++) {
        if (x < xs[at - 1] - 0.02 * this.span || x > xs[at] + 0.02 * this.span) continue;
        const ends = [at - 1, at].map((one) => [(xs[one] / this.span) * width, ys[one] * height]);
        const far = distance((x / this.span) * width, y * height, ...ends);
        if (far < reach) [best, reach] = [run, far];
      }
    }
    return best;
  }
}

// An axis for each of `keys`, side by side, and a line for each run.
class Parallel extends Lines {
  constructor(runs, element, keys) {
    super(runs, element, 380);
    this.keys = keys;
    this.stems = this.source("x");
    this.labels = this.source("x", "y", "text");
    this.stemMarks = this.plot.segment({field: "x"}, 0, {field: "x"}, 1, {source: this.stems, line_width: 1.5});
    this.labelMarks = this.plot.text({field: "x"}, {field: "y"}, {field: "text"}, {
      source: this.labels, x_offset: 5, text_baseline: "middle", text_font_size: "11px", background_fill_alpha: 0.8,
    });
    this.plot.left[0].visible = false;
    for (const grid of this.plot.center) grid.visible = false;
    this.brushable(({x0, x1, y0, y1}) => {
      const inside = [...this.keys.keys()].filter((at) => at >= x0 && at <= x1);
      const nearest = Math.min(this.keys.length - 1, Math.max(0, Math.round((x0 + x1) / 2)));
      runs.brush((inside.length ? inside : [nearest]).flatMap((at) => this.axes[at].between(this.keys[at], [y0, y1])));
    });
  }

  draw() {
    this.paintFrame();
    this.columns = this.keys.map((key) => this.runs.columns.get(key));
    this.axes = this.columns.map((column) => axisOf(column, this.shownRuns, this.runs.all));
    const last = this.keys.length - 1;
    Object.assign(this.plot.x_range, {start: -0.15, end: last + 0.6});
    this.span = last + 0.75;
    this.places = [...this.keys.keys()];
    const ticks = this.axes.flatMap((axis, x) => axis.ticks(6).map(({place, text}) => ({x, y: place, text})));
    this.labels.data = {x: ticks.map(({x}) => x), y: ticks.map(({y}) => y), text: ticks.map(({text}) => text.length > 14 ? `${text.slice(0, 13)}…` : text)};
    this.stems.data = {x: this.places};
    this.stemMarks.glyph.line_color = colourNamed("--faint");
    Object.assign(this.labelMarks.glyph, {text_color: colourNamed("--text"), background_fill_color: colourNamed("--page"), text_font: getComputedStyle(document.body).fontFamily});
    this.setAxis("x", {ticks: () => this.columns.map(({title}, place) => ({place, text: title}))}, "");
    const boxes = this.columns.flatMap((column, at) => {
      const comparisons = this.comparisonsOf(column);
      return (comparisons.length ? this.axes[at].stretches(comparisons) : []).map(([bottom, top]) => ({at, bottom, top}));
    });
    this.boxes.data = {
      left: boxes.map(({at}) => at - 0.06), right: boxes.map(({at}) => at + 0.06),
      bottom: boxes.map(({bottom}) => bottom), top: boxes.map(({top}) => top),
    };
    this.drawLines();
  }

  lineOf(run) {
    return {xs: this.places, ys: this.columns.map((column, at) => this.axes[at].place(column.at(run)))};
  }
}

// A figure of each epoch, of each run or the mean over the runs of a colour.
class Curves extends Lines {
  constructor(runs, element, key) {
    super(runs, element, 400);
    Object.assign(this, {key, ofMeans: false, isLog: {x: false, y: false}, span: 1, spansOfAll: new Map()});
    let end = 0;
    this.ends = runs.curves.lengths.map((length) => (end += length));
    this.bands = this.source("xs", "ys", "colour");
    this.plot.patches({field: "xs"}, {field: "ys"}, {source: this.bands, fill_color: {field: "colour"}, fill_alpha: 0.2, line_color: null});
  }

  *epochs(run) {
    const values = this.runs.curves.figures[this.key];
    for (let at = this.ends[run] - this.runs.curves.lengths[run]; at < this.ends[run]; at++) {
      if (values[at] !== null) yield [this.runs.curves.epoch[at], values[at]];
    }
  }

  draw() {
    this.paintFrame();
    const [epochs, values] = this.spans();
    const factor = this.key.endsWith("accuracy") ? 100 : 1;
    this.axes = [new NumberAxis(epochs, {isLog: this.isLog.x, isWhole: true}), new NumberAxis(values, {isLog: this.isLog.y, factor})];
    this.setAxis("x", this.axes[0], "epoch");
    this.setAxis("y", this.axes[1], CURVE_TITLES[this.key]);
    this.bands.data = {xs: [], ys: [], colour: []};
    this.drawLines();
    if (this.ofMeans) this.drawMeans();
  }

  // From the first to the last epoch and the lowest to the highest value; of all runs they are looked for once.
  spans() {
    const name = `${this.key} ${this.isLog.y}`;
    if (this.shownRuns === this.runs.all && this.spansOfAll.has(name)) return this.spansOfAll.get(name);
    const points = Array.from(this.shownRuns, (run) => [...this.epochs(run)]).flat();
    const values = points.map(([, value]) => value).filter((value) => !this.isLog.y || value > 0);
    const found = [bounds(points.map(([epoch]) => epoch)), bounds(values)];
    if (this.shownRuns === this.runs.all) this.spansOfAll.set(name, found);
    return found;
  }

  drawMeans() {
    const groups = new Map(); // of a level: the sums of each epoch's values
    for (const run of this.runs.kept) {
      const level = this.runs.colours.column.at(run);
      if (!groups.has(level)) groups.set(level, {run, sums: new Map()});
      const {sums} = groups.get(level);
      for (const [epoch, value] of this.epochs(run)) {
        const [n, sum, squares] = sums.get(epoch) ?? [0, 0, 0];
        sums.set(epoch, [n + 1, sum + value, squares + value * value]);
      }
    }
    const means = [...groups.values()].map(({run, sums}) => {
      const points = [...sums].sort(([a], [b]) => a - b).map(([epoch, [n, sum, squares]]) => {
        const spread = n > 1 ? Math.sqrt(Math.max(0, (squares - (sum * sum) / n) / (n - 1))) : 0;
        return {x: this.axes[0].place(epoch), ys: [sum / n, sum / n - spread, sum / n + spread].map((value) => this.axes[1].place(value))};
      });
      const xs = points.map(({x}) => x);
      const [middle, low, high] = [0, 1, 2].map((at) => points.map(({ys}) => ys[at]));
      return {run, xs, ys: middle, low: low.map((y) => (Number.isNaN(y) ? 0 : y)), high};
    });
    this.drawn = [];
    this.lines.data = this.coloured(means);
    const around = means.map(({run, xs, low, high}) => ({run, xs: [...xs, ...xs.toReversed()], ys: [...high, ...low.toReversed()]}));
    this.bands.data = this.coloured(around);
  }

  lineOf(run) {
    const points = [...this.epochs(run)];
    return {xs: points.map(([epoch]) => this.axes[0].place(epoch)), ys: points.map(([, value]) => this.axes[1].place(value))};
  }
}

const CURVE_TITLES = {
  val_accuracy: "validation accuracy, %", train_accuracy: "training accuracy, %", val_loss: "validation loss", train_loss: "training loss",
};
