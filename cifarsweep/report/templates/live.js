"use strict";
// Only on the page of a sweep that runs: shows what the server tells, and loads the page anew where that has changed.
(() => {
  const CALM = 3000; // milliseconds without a key or a click, before the page is loaded anew under the reader's hands
  const PATIENCE = 5000; // milliseconds for what a page draws after it is loaded
  const KEPT = "cifarsweep-kept";
  let touched = 0;
  for (const kind of ["pointerdown", "keydown", "wheel"]) addEventListener(kind, () => (touched = Date.now()), {passive: true});

  const fields = () => [...document.querySelectorAll("input[id], select[id]")];
  const scrolled = () => [...document.querySelectorAll(".scroll")];
  const details = () => [...document.querySelectorAll("details")];

  // What the reader has done to the page.
  const keep = () => sessionStorage.setItem(KEPT, JSON.stringify({
    fields: fields().map(({id, type, checked, value}) => [id, type === "checkbox" ? checked : value]),
    open: details().map(({open}) => open),
    inner: scrolled().map(({scrollTop, scrollLeft}) => [scrollTop, scrollLeft]),
    place: [scrollX, scrollY],
    focus: document.activeElement?.id,
  }));

  const restoreFields = ({fields: kept}) => kept.forEach(([id, value]) => {
    const field = document.getElementById(id);
    if (!field || value === (field.type === "checkbox" ? field.checked : field.value)) return;
    field[field.type === "checkbox" ? "checked" : "value"] = value;
    for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind, {bubbles: true}));
  });

  const restorePlace = ({open, inner, place, focus}) => {
    details().forEach((one, at) => (one.open = open[at] ?? one.open));
    scrolled().forEach((one, at) => inner[at] && one.scrollTo(...inner[at]));
    if (focus) document.getElementById(focus)?.focus({preventScroll: true});
    scrollTo({left: place[0], top: place[1], behavior: "instant"});
  };

  const restore = () => {
    const kept = JSON.parse(sessionStorage.getItem(KEPT));
    sessionStorage.removeItem(KEPT);
    if (!kept) return;
    const began = Date.now();
    let isFiltered = false;
    const again = () => {
      const late = Date.now() - began > PATIENCE;
      const filter = document.getElementById("filter");
      if (!isFiltered && (late || (filter && !filter.closest("[hidden]")))) {
        restoreFields(kept);
        isFiltered = true;
      }
      if (touched < began) restorePlace(kept);
      const isDrawn = !document.getElementById("library") || document.documentElement.dataset.figures;
      if (!late && !(isFiltered && isDrawn && document.readyState === "complete")) setTimeout(again, 50);
    };
    again();
  };

  const follow = () => {
    const now = document.getElementById("now");
    restore();
    if (now.querySelector("[data-over]")) return;
    const events = new EventSource("events");
    let isLoading = false;
    let isOver = false; // then the server does not wait for long
    const load = () => {
      if (!isOver && (document.hidden || Date.now() - touched < CALM)) return setTimeout(load, 500);
      keep();
      location.reload();
    };
    events.addEventListener("message", ({data}) => {
      const scroller = now.querySelector(".scroll");
      const place = [scroller?.scrollLeft ?? 0, scroller?.scrollTop ?? 0];
      now.innerHTML = data;
      now.querySelector(".scroll")?.scrollTo(...place);
      const told = now.firstElementChild;
      isOver = "over" in told.dataset;
      if (!isOver && (told.dataset.page === now.dataset.page || isLoading)) return;
      isLoading = true;
      load();
    });
    events.addEventListener("error", () => {
      if (!now.querySelector("[data-over]")) now.querySelector(".notice").textContent = "No connection: the watch has ended, and this is what it showed last.";
    });
  };
  document.addEventListener("DOMContentLoaded", follow);
})();
