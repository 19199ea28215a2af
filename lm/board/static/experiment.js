// The page of one experiment: its runs, the curves of the chosen ones, what is in work and what failed.

import { duration, element, whole } from "./format.js";
import { live, question } from "./live.js";
import { Panel } from "./panel.js";
import { look, MOST, RunTable } from "./table.js";

const FIRST = 8; // curves shown before anybody has chosen
const FAILURES = 5; // failures listed at most

const main = document.querySelector("main");
const at = (selector) => main.querySelector(selector);
const ask = question();
let known = null;

let byId = new Map(), arms = [];

const table = new RunTable(at("#runs"), (run, slot) => drawn(run, slot).colour, () => {
  choiceChanged();
  panel.refresh().catch(() => {}); // said by the next live question
});
const panel = new Panel(at("#curves"), chosenRuns, () => {
  table.render();
  remember();
});

/** How a chosen run is drawn. By arm, an arm has the colour of its place in the experiment, as in the reports. */
const drawn = (run, slot) => look(panel.state().colour === "arm" ? arms.indexOf(run.arm) : slot);

function chosenRuns() {
  return [...table.chosen].map(([id, slot]) => ({ id, label: label(byId.get(id)), ...drawn(byId.get(id), slot) }));
}

const label = (run) => (run.seed === null ? run.arm ?? run.id : `${run.arm} seed ${run.seed}`);

// ---- what is chosen, kept in the address so that a reload or a colleague sees the same

function remember() {
  const { smooth, ...state } = panel.state();
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) parts.set(name, value === true ? "1" : value === false ? "0" : value);
  parts.set("smooth", smooth);
  parts.set("runs", [...table.chosen.keys()].join(","));
  history.replaceState(null, "", `#${parts}`);
}

function restore() {
  const parts = new URLSearchParams(location.hash.slice(1));
  panel.restore(parts);
  if (parts.has("runs")) for (const id of parts.get("runs").split(",").filter(Boolean)) table.choose(id, true);
  else for (const run of representatives()) table.choose(run.id, true);
}

/** The first seed of each arm, and of many arms those with the lowest loss. */
function representatives() {
  const first = new Map();
  for (const run of known.runs) {
    const arm = run.arm ?? run.id;
    if (!first.has(arm) && run.status !== "new") first.set(arm, run);
  }
  const arms = [...first.values()];
  if (arms.length <= FIRST) return arms;
  return arms.sort((a, b) => (a.heldout_loss ?? Infinity) - (b.heldout_loss ?? Infinity)).slice(0, FIRST);
}

function choiceChanged() {
  const ids = [...table.chosen.keys()];
  at("#chosen").textContent = ids.length >= MOST ? `${ids.length} chosen, the most at a time` : `${ids.length} chosen`;
  at("#clear").disabled = ids.length === 0;
  const compare = at("#compare");
  compare.disabled = ids.length !== 2;
  compare.title = ids.length === 2 ? "" : "choose two runs";
  remember();
}

at("#clear").addEventListener("click", () => {
  table.chosen.clear();
  table.render();
  choiceChanged();
  panel.refresh();
});

at("#compare").addEventListener("click", () => {
  const [a, b] = table.chosen.keys();
  location.assign(`/diff?${new URLSearchParams({ a, b })}`);
});

// ---- state of the whole

function summary() {
  const counts = ["done", "running", "interrupted", "failed", "new"].map((name) => [name, known.counts[name] ?? 0]);
  const state = ([name, n]) => element("span", { class: `state ${name}` }, `${whole(n)} ${name}`);
  const said = counts.filter(([, n]) => n).map(state);
  if (known.eta !== null) said.push(element("span", { class: "soft" }, `about ${duration(known.eta)} left`));
  at("#summary").replaceChildren(...said);
}

function failures() {
  const failed = known.runs.filter((run) => run.error);
  const link = (run) => element("a", { href: `/run/${encodeURIComponent(run.id)}` }, label(run));
  const items = failed.slice(0, FAILURES).map((run) => element("li", {}, link(run), " ", element("span", {}, run.error)));
  const more = failed.length - FAILURES;
  if (more > 0) items.push(element("li", { class: "soft" }, `and ${whole(more)} more: filter the table by “failed”`));
  at("#failures").hidden = failed.length === 0;
  at("#failures ul").replaceChildren(...items);
}

live(async () => {
  const fresh = await ask(main.dataset.runs);
  if (fresh) {
    const first = known === null;
    known = fresh;
    byId = new Map(known.runs.map((run) => [run.id, run]));
    arms = [...new Set(known.runs.map((run) => run.arm))];
    if (first) restore();
    table.update(known.runs, known.axes);
    summary();
    failures();
    choiceChanged();
  }
  await panel.refresh();
});
