// The table of an experiment's runs: text filter, sorting by any column, pages, and the choice of runs.

import { duration, element, plain, si, whole } from "./format.js";

const PAGE = 50;
export const MOST = 64; // runs chosen at a time
const COLOURS = 8;
const DASHES = ["", "7 3", "2 2.5", "9 3 2 3"];

const number = (key, title, text, hint = "") => ({ key, title, text, hint, number: true });

const COLUMNS = [
  number("seed", "seed", whole),
  { key: "status", title: "status", cell: (run) => status(run) },
  { key: "progress", title: "progress", cell: (run) => progress(run), sort: (run) => run.fraction },
  number("heldout_loss", "held-out loss", (v) => v.toFixed(4), "nats a token, at the end"),
  number("heldout_bpb", "bits/byte", (v) => v.toFixed(4)),
  number("params", "params", si),
  number("tokens", "tokens", si),
  number("flops", "FLOPs", si, "of the whole training"),
  number("tokens_per_second", "tokens/s", si),
  number("seconds", "time", duration, "training, without compilation and evaluation"),
  { key: "id", title: "run", cell: (run) => element("code", {}, run.id.slice(0, 8)) },
];

/** How the n-th chosen curve looks: a colour of the palette, and a dash once the colours are used up. */
export function look(slot) {
  return { colour: `c${slot % COLOURS}`, dash: DASHES[Math.floor(slot / COLOURS) % DASHES.length] };
}

/** `colour(run, slot)` is a chosen run's; `changed()` hears of each change of `chosen`, a Map from id to slot. */
export class RunTable {
  constructor(root, colour, changed) {
    this.table = root.querySelector("table");
    this.filter = root.querySelector("input[type=search]");
    this.pager = root.querySelector(".pager");
    this.colour = colour;
    this.changed = changed;
    this.runs = [];
    this.chosen = new Map();
    this.sorted = null; // {key, down}; null: the experiment's own order
    this.page = 0;
    this.filter.addEventListener("input", () => {
      this.page = 0;
      this.render();
    });
  }

  update(runs, axes) {
    this.runs = runs;
    const ids = new Set(runs.map((run) => run.id));
    for (const id of this.chosen.keys()) if (!ids.has(id)) this.chosen.delete(id);
    const link = (run) => ({ href: `/run/${encodeURIComponent(run.id)}`, title: run.arm });
    const arm = { key: "arm", title: "arm", cell: (run) => element("a", link(run), run.arm ?? run.id) };
    const points = axes.map((axis) => ({
      key: axis, title: axis.split(".").at(-1), hint: axis, text: plain, sort: (run) => run.point[axis],
      number: runs.every((run) => typeof (run.point[axis] ?? 0) === "number"),
    }));
    const filled = ({ key }) => runs.some((run) => !missing(key === "progress" ? run.step : run[key]));
    this.table.classList.toggle("swept", axes.length > 1); // the columns say what the arms' names say
    this.columns = [arm, ...points, ...COLUMNS.filter(filled)];
    this.render();
  }

  choose(id, on) {
    if (!on) this.chosen.delete(id);
    else if (!this.chosen.has(id) && this.chosen.size < MOST) {
      const taken = new Set(this.chosen.values());
      let slot = 0;
      while (taken.has(slot)) slot += 1;
      this.chosen.set(id, slot);
    }
  }

  /** The runs that pass the filter, in the chosen order: every word must be somewhere in the row. */
  shown() {
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.runs.filter((run) => words.every((word) => text(run).includes(word)));
    if (!this.sorted) return found;
    const { key, down } = this.sorted;
    const column = this.columns.find((c) => c.key === key);
    const value = column?.sort ?? ((run) => run[key]);
    return found.sort((a, b) => compare(value(a), value(b), down));
  }

  render() {
    const shown = this.shown();
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    this.page = Math.min(this.page, pages - 1);
    const rows = shown.slice(this.page * PAGE, (this.page + 1) * PAGE);
    const focused = this.table.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    const body = element("tbody", {}, ...rows.map((run) => this.row(run)));
    if (!rows.length) {
      body.append(element("tr", {}, element("td", { class: "none", colspan: this.columns.length + 1 }, "No run matches.")));
    }
    this.table.replaceChildren(element("thead", {}, this.heading(shown)), body);
    this.renderPager(shown.length, pages);
    if (focused) this.table.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
  }

  heading(shown) {
    const some = shown.length > 0 && shown.slice(0, MOST).every((run) => this.chosen.has(run.id));
    const says = `choose all shown (${MOST} at most)`;
    const all = element("input", { type: "checkbox", "aria-label": "choose all", title: says, "data-focus": "all" });
    all.checked = some;
    all.addEventListener("change", () => {
      for (const run of shown) this.choose(run.id, all.checked);
      this.render();
      this.changed();
    });
    return element("tr", {}, element("th", { class: "pick" }, all), ...this.columns.map((column) => this.sorter(column)));
  }

  sorter({ key, title, hint, number: right }) {
    const down = this.sorted?.key === key ? this.sorted.down : null;
    const button = element("button", { type: "button", title: hint || null, "data-focus": `sort ${key}` }, title);
    button.addEventListener("click", () => {
      this.sorted = down === true ? null : { key, down: down === false };
      this.render();
    });
    const order = down === null ? "none" : down ? "descending" : "ascending";
    return element("th", { class: right ? "number" : key, "aria-sort": order }, button);
  }

  row(run) {
    const slot = this.chosen.get(run.id);
    const colour = slot === undefined ? null : this.colour(run, slot);
    const says = `choose ${run.arm ?? run.id} seed ${run.seed}`;
    const box = element("input", { type: "checkbox", class: colour, "aria-label": says, "data-focus": run.id });
    box.checked = slot !== undefined;
    const toggle = () => {
      this.choose(run.id, !this.chosen.has(run.id));
      this.render();
      this.changed();
    };
    box.addEventListener("change", toggle);
    const cells = this.columns.map((column) => this.cell(run, column));
    const pick = element("td", { class: "pick" }, box);
    const row = element("tr", { class: slot === undefined ? null : "chosen", "data-id": run.id }, pick, ...cells);
    row.addEventListener("click", (event) => {
      if (!event.target.closest("a, input") && !String(getSelection())) toggle();
    });
    return row;
  }

  cell(run, { key, cell, text: say, sort, number: right }) {
    const value = sort && !cell ? sort(run) : run[key];
    const content = cell ? cell(run) : missing(value) ? "–" : typeof value === "string" ? value : say(value);
    return element("td", { class: right ? `number${missing(value) ? " soft" : ""}` : key }, content);
  }

  renderPager(count, pages) {
    const step = (by, name, label) => {
      const disabled = this.page + by < 0 || this.page + by >= pages;
      const button = element("button", { type: "button", "aria-label": label, disabled }, name);
      button.addEventListener("click", () => {
        this.page += by;
        this.render();
      });
      return button;
    };
    const first = this.page * PAGE + 1;
    const of = count === this.runs.length ? whole(count) : `${whole(count)} of ${whole(this.runs.length)}`;
    const noun = this.runs.length === 1 ? "run" : "runs";
    const says = count > PAGE ? `${whole(first)}–${whole(Math.min(first + PAGE - 1, count))} of ${of}` : `${of} ${noun}`;
    const steps = pages > 1 ? [step(-1, "‹", "previous page"), step(1, "›", "next page")] : [];
    this.pager.replaceChildren(element("span", { class: "soft" }, says), ...steps);
  }
}

const missing = (value) => value === null || value === undefined || value === "";

function text(run) {
  if (run.text === undefined) {
    const point = Object.entries(run.point).map(([path, value]) => `${path}=${value}`);
    run.text = [run.arm, `seed ${run.seed}`, run.status, run.id, run.error, ...point].join(" ").toLowerCase();
  }
  return run.text;
}

/** Numbers before words, what is missing last, whichever way the table is sorted. */
function compare(a, b, down) {
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  const numbers = typeof a === "number" && typeof b === "number";
  const order = numbers ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return down ? -order : order;
}

function status(run) {
  return element("span", { class: `state ${run.status}`, title: run.error || null }, run.status);
}

function progress(run) {
  if (run.step === null) return "";
  const steps = run.steps === null ? whole(run.step) : `${whole(run.step)}/${whole(run.steps)}`;
  if (run.status !== "running" || run.steps === null) return element("span", { class: "soft" }, `at ${steps}`);
  const left = run.eta === null ? "" : `, ${duration(run.eta)} left`;
  const bar = element("progress", { max: run.steps, value: run.step });
  const says = run.eta === null ? steps : `${duration(run.eta)} left`;
  return element("span", { class: "working", title: `step ${steps}${left}` }, bar, element("span", {}, says));
}
