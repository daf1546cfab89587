"use strict";
// What the reader can do on the page: controls around the table and the figures. Without this script the page is complete, but still.

const byId = (id) => document.getElementById(id);
const NOT_LISTED = /\.|^(directory|data_fingerprint)$/; // columns that `python -m cifarsweep.runs` does not know

const checkbox = (id, text, checked, change, disabled = false) => {
  const input = element("input", {type: "checkbox", id, checked, disabled});
  input.addEventListener("change", () => change(input.checked));
  return element("label", {}, [input, ` ${text}`]);
};

// A live page gives back what the reader had chosen before, which may be no option any more.
const offer = (select, options, value, change) => {
  select.append(...options.map(([key, title]) => element("option", {value: key}, [title])));
  select.value = value;
  select.addEventListener("change", () => (select.value ? change(select.value) : (select.value = value)));
  return select;
};

const choice = (id, text, ...offered) => element("label", {}, [`${text} `, offer(element("select", {id}), ...offered)]);

const addFilter = (runs) => {
  const input = byId("filter");
  const filter = () => runs.filter(input.value);
  runs.brush = (comparisons) => {
    input.value = runs.conditionWith(comparisons);
    filter();
  };
  runs.listeners.push((what) => {
    if (what !== "kept") return;
    byId("shown").textContent = runs.problem || `${runs.kept.length} of ${runs.count} runs`;
    input.ariaInvalid = String(runs.problem !== "");
    byId("command").hidden = !runs.comparisons.length || runs.comparisons.some(({key}) => NOT_LISTED.test(key));
    const condition = conditions.written(runs.comparisons).replaceAll("'", `'"'"'`);
    byId("command").querySelector("code").textContent = `python -m cifarsweep.runs ${runs.source} '${condition}'`;
  });
  input.addEventListener("input", filter);
  input.form.addEventListener("submit", (event) => event.preventDefault());
  byId("clear").addEventListener("click", () => {
    input.value = "";
    filter();
    input.focus();
  });
  byId("zoom").addEventListener("change", (event) => {
    runs.zoom = event.target.checked;
    runs.tell("look");
  });
};

const addColours = (runs) => {
  const now = runs.colours.column;
  const columns = [...runs.columns.values()].filter((column) => column === now || (column.varies && column.key !== "run_id"));
  offer(byId("colour"), columns.map(({key, title}) => [key, title]), now.key, (key) => runs.colourBy(key));
  const show = () => {
    const {column, isRange} = runs.colours;
    const palette = new Palette(runs.colours);
    const item = (colour, text) => {
      const swatch = element("span", {className: "swatch"});
      swatch.style.background = colour;
      return element("li", {}, [swatch, text]);
    };
    const texts = column.levels.map((level) => column.text(level));
    if (isRange) byId("legend").replaceChildren(item(`linear-gradient(90deg, ${palette.list})`, `${column.title} ${texts[0]} to ${texts.at(-1)}`));
    else {
      const shared = texts.slice(MOST_COLOURS - 1);
      const own = [...texts.slice(0, MOST_COLOURS - 1), ...(shared.length > 1 ? [`${shared.length} others`] : shared)];
      byId("legend").replaceChildren(...own.map((text, at) => item(palette.list[at], `${text}`)));
    }
  };
  runs.listeners.push((what) => what === "look" && show());
  isDark.addEventListener("change", show);
  show();
};

const addTable = (runs) => {
  const table = new Table(runs, byId("table"));
  byId("table").addEventListener("shown", () => {
    byId("rows").textContent = table.said;
    for (const name of ["previous", "next"]) byId(name).hidden = table.numPages === 1;
    byId("previous").disabled = table.page === 0;
    byId("next").disabled = table.page === table.numPages - 1;
  });
  byId("previous").addEventListener("click", () => table.show(table.page - 1));
  byId("next").addEventListener("click", () => table.show(table.page + 1));
  byId("export").addEventListener("click", () => {
    const href = URL.createObjectURL(new Blob([table.csv()], {type: "text/csv"}));
    element("a", {href, download: "runs.csv"}).click();
    URL.revokeObjectURL(href);
  });
  byId("columns").append(...[...runs.columns.values()].map(({key, title}) => element("li", {}, [
    checkbox(`column-${key}`, title, table.keys.includes(key), (isShown) => {
      table.keys = [...runs.columns.keys()].filter((one) => (one === key ? isShown : table.keys.includes(one)));
      table.show(table.page);
    }),
  ])));
};

const facts = (runs, run) => element("dl", {className: "pairs"}, runs.facts(run)
  .map(([title, text]) => element("div", {}, [element("dt", {}, [title]), element("dd", {}, [text])])));

const addDetails = (runs) => {
  const tip = byId("tip");
  addEventListener("pointermove", ({clientX, clientY}) => {
    tip.style.left = `${Math.min(clientX + 16, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${clientY + 16 + tip.offsetHeight > innerHeight ? clientY - tip.offsetHeight - 8 : clientY + 16}px`;
  });
  runs.listeners.push((what) => {
    if (what === "pointed") {
      tip.hidden = runs.pointed === null;
      if (!tip.hidden) tip.replaceChildren(facts(runs, runs.pointed));
    }
    if (what === "chosen") byId("chosen").replaceChildren(element("h3", {}, ["The chosen run"]), facts(runs, runs.chosen));
  });
};

// The library is a script whose hash the page's policy knows.
const addFigures = async (runs) => {
  document.head.append(element("script", {textContent: await unpacked("library")}));
  Bokeh.set_log_level("warn");
  document.querySelector(".plots").hidden = false;
  const varying = runs.varying.filter(({levels}) => levels.length > 1);
  const measured = ["val_accuracy", "test_accuracy", "train_seconds"];
  const settings = runs.settings.filter((key) => runs.columns.get(key).varies);
  const found = (...keys) => runs.columns.get(keys.find((key) => varying.some((column) => column.key === key)) ?? varying[0]?.key ?? "seed");
  const figures = [];

  const axes = [...settings.slice(0, 7), ...measured.filter((key) => runs.columns.get(key).varies)];
  const parallel = new Parallel(runs, byId("parallel"), axes.length > 1 ? axes : ["model", ...measured]);
  const makeRoom = () => (parallel.element.style.minWidth = `${90 * parallel.keys.length}px`);
  makeRoom();
  figures.push(parallel);
  byId("axes").append(...varying.map((column) => element("li", {}, [
    checkbox(`axis-${column.key}`, column.title, parallel.keys.includes(column.key), (isShown) => {
      parallel.keys = [...runs.columns.keys()].filter((key) => (key === column.key ? isShown : parallel.keys.includes(key)));
      makeRoom();
      parallel.update();
    }),
    " ",
    checkbox(`log-${column.key}`, "log", column.isLog, (isLog) => {
      column.isLog = isLog;
      runs.tell("look");
    }, !column.canBeLog),
  ])));

  const of = found("val_accuracy", "test_accuracy");
  for (const [x, y] of [[found("optimizer.lr", "lr", "depth", ...settings), of], [found("train_seconds", "params"), found("test_accuracy", "val_accuracy")]]) {
    const plot = element("div", {className: "plot"});
    const scatter = new Scatter(runs, plot, x, y);
    const options = varying.filter(({key}) => key !== "run_id").map(({key, title}) => [key, title]);
    const selects = ["x", "y"].map((which) => choice(`${which}-${figures.length}`, which === "x" ? "Across" : "Up", options, scatter[which].key, (key) => {
      scatter[which] = runs.columns.get(key);
      scatter.update();
    }));
    byId("scatters").append(element("div", {}, [element("div", {className: "bar"}, selects), plot]));
    figures.push(scatter);
  }

  const keys = Object.keys(runs.curves.figures);
  if (keys.length) {
    const curves = new Curves(runs, byId("curves-plot"), keys[0]);
    const redrawn = (change) => (value) => {
      change(value);
      curves.update();
    };
    byId("curves-controls").append(
      choice("curves-key", "Show", keys.map((key) => [key, CURVE_TITLES[key]]), keys[0], redrawn((key) => (curves.key = key))),
      checkbox("curves-means", "mean and spread of each colour", false, redrawn((on) => (curves.ofMeans = on))),
      checkbox("curves-log-x", "log epochs", false, redrawn((on) => (curves.isLog.x = on))),
      checkbox("curves-log-y", "log values", false, redrawn((on) => (curves.isLog.y = on))),
    );
    byId("curves-live").hidden = false;
    figures.push(curves);
  }

  const shown = new Bokeh.Document();
  figures.forEach(({plot}) => shown.add_root(plot));
  await Bokeh.embed.add_document_standalone(shown, document.body, figures.map(({element}) => element));
  figures.forEach((figure) => figure.begin());
  requestAnimationFrame(() => {
    performance.mark("drawn");
    document.documentElement.dataset.figures = "drawn";
  });
};

const start = async () => {
  if (!byId("explore") || typeof DecompressionStream === "undefined") return;
  const runs = new Runs(JSON.parse(await unpacked("runs-data")));
  addFilter(runs);
  addColours(runs);
  addTable(runs);
  addDetails(runs);
  byId("explore").hidden = false;
  document.documentElement.classList.add("live");
  runs.filter("");
  await addFigures(runs);
};
start();
