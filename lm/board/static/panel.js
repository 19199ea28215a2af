// Curves with their controls: which split, which x, log axes, smoothing. Used by the experiment's and the run's page.

import { Chart } from "./chart.js";
import { element, tick, whole } from "./format.js";
import { question } from "./live.js";

const X = {
  step: { label: "step", of: (line) => line.step },
  tokens: { label: "tokens", of: (line) => line.tokens },
  flops: { label: "FLOPs", of: (line, run) => line.tokens.map((t) => t * (run.flops_per_token ?? NaN)) },
};

/** `runs()` gives what to draw, in order: [{id, label, colour, dash}]. `changed(state)` hears of the controls. */
export class Panel {
  constructor(root, runs, changed = () => {}) {
    this.form = root.querySelector("form");
    this.legend = root.querySelector(".legend");
    this.runs = runs;
    this.ask = question();
    this.data = {};
    this.chart = new Chart(root.querySelector(".chart"), {
      xText: (v, full) => (full && this.state().x === "step" ? whole(v) : tick(v)),
      yText: (v) => v.toFixed(4),
    });
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", (event) => {
      changed(this.state());
      if (event.target.name === "smooth") this.later();
      else this.draw();
    });
  }

  state() {
    const found = new FormData(this.form);
    return {
      split: found.get("split"), x: found.get("x"), colour: found.get("colour") ?? "run",
      smooth: Number(found.get("smooth")), logx: found.has("logx"), logy: found.has("logy"),
    };
  }

  /** Sets controls from text, as an address holds it; what isn't a control's value is left alone. */
  restore(values) {
    for (const field of this.form.elements) {
      if (!field.name || !values.has(field.name)) continue;
      const value = values.get(field.name);
      if (field.type === "radio") field.checked = field.value === value;
      else if (field.type === "checkbox") field.checked = value === "1";
      else field.value = value;
    }
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.refresh().catch(() => {}), 120);
  }

  /** Asks for the curves of the chosen runs and draws them where they are new. */
  async refresh() {
    const query = new URLSearchParams(this.runs().map((run) => ["run", run.id]));
    query.append("smooth", this.state().smooth);
    const fresh = query.has("run") ? await this.ask(`/api/curves?${query}`) : {};
    if (fresh !== null) {
      this.data = fresh;
      this.draw();
    }
  }

  draw() {
    const { split, x, logx, logy } = this.state();
    const splits = split === "both" ? ["train", "heldout"] : [split];
    const series = [];
    for (const run of this.runs()) {
      for (const part of splits) {
        const line = this.data[run.id]?.[part];
        if (!line) continue;
        const xs = X[x].of(line, this.data[run.id]);
        series.push({
          ...run, faint: split === "both" && part === "train", dots: part === "heldout",
          label: split === "both" ? `${run.label}, ${part === "train" ? "train" : "held-out"}` : run.label,
          points: line.loss.map((y, i) => [xs[i], y]),
        });
      }
    }
    const words = { train: "training loss", heldout: "held-out loss", both: "loss" };
    const unknown = series.some((s) => s.points.length) ? `${X[x].label} aren't known here.` : "Nothing measured yet.";
    const empty = this.runs().length ? unknown : "Choose runs in the table to see their curves.";
    this.chart.draw(series, { xLabel: X[x].label, yLabel: `${words[split]} (nats/token)`, logX: logx, logY: logy, empty });
    this.drawLegend(split === "train" ? "train" : "heldout");
  }

  drawLegend(part) {
    if (!this.legend) return;
    this.legend.classList.toggle("long", this.runs().some((run) => run.label.length > 24));
    this.legend.replaceChildren(...this.runs().map((run) => {
      const loss = this.data[run.id]?.[part]?.loss.filter((v) => v !== null) ?? [];
      const link = { href: `/run/${encodeURIComponent(run.id)}`, title: run.label };
      const item = element("li", {},
        element("span", { class: `swatch ${run.colour}` }), element("a", link, run.label),
        element("span", { class: "number" }, loss.length ? loss.at(-1).toFixed(4) : "–"));
      item.addEventListener("pointerenter", () => this.chart.emphasise(run.id));
      item.addEventListener("pointerleave", () => this.chart.emphasise(null));
      return item;
    }));
  }
}

