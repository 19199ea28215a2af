// The page of one run: its curve, and a filter over its config.

import { live, swap } from "./live.js";
import { Panel } from "./panel.js";

const main = document.querySelector("main");
const curve = { id: main.dataset.run, label: main.dataset.label, colour: "c1", dash: "" };
const panel = new Panel(main.querySelector("#curves"), () => [curve]);

const filter = main.querySelector("#config input[type=search]");
filter?.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of main.querySelectorAll("#config dl div")) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
});

live(async () => {
  await swap();
  await panel.refresh();
});
