// A chart of curves as SVG: axes, lines, a read-out under the pointer, zoom by dragging. Nothing but drawing.

import { element, svg } from "./format.js";
import { extent, scale, ticks } from "./scale.js";

const EDGE = { top: 10, right: 14, bottom: 42, left: 56 };
const BESIDE = 16; // pixels between points that are read out together
const READ_OUT = 14; // curves that a read-out lists at most

/**
 * Draws into `host`. A series is {id, label, colour, dash, faint, dots, points: [[x, y], ...]} with points in the order
 * of x; `colour` is a class of the style sheet, so that light and dark are settled there. A y of null is a gap.
 */
export class Chart {
  constructor(host, { xText, yText }) {
    this.host = host;
    this.xText = xText;
    this.yText = yText;
    this.series = [];
    this.options = { xLabel: "", yLabel: "", logX: false, logY: false, empty: "" };
    this.zoom = null;
    this.frame = element("div", { class: "chart-frame" });
    this.tip = element("div", { class: "tip", hidden: true });
    host.replaceChildren(this.frame, this.tip);
    this.frame.addEventListener("pointermove", (event) => this.point(event));
    this.frame.addEventListener("pointerdown", (event) => this.press(event));
    this.frame.addEventListener("pointerup", (event) => this.release(event));
    this.frame.addEventListener("pointerleave", () => this.leave());
    this.frame.addEventListener("dblclick", () => this.reset());
    new ResizeObserver(() => this.render()).observe(host);
  }

  draw(series, options) {
    const axisChanged = options.xLabel !== this.options.xLabel || options.logX !== this.options.logX;
    if (axisChanged) this.zoom = null;
    this.series = series;
    this.options = options;
    this.render();
  }

  reset() {
    this.zoom = null;
    this.render();
  }

  /** Makes one run stand out (null: none). */
  emphasise(id) {
    for (const path of this.frame.querySelectorAll(".curve, .dot")) {
      path.classList.toggle("dim", id !== null && path.dataset.id !== id);
    }
  }

  render() {
    const width = this.host.clientWidth;
    const height = Math.round(Math.min(Math.max(width * 0.42, 240), 430));
    if (!width) return;
    const { logX, logY } = this.options;
    const seen = this.visible();
    const xs = this.zoom ?? extent(seen.flatMap((s) => s.points.map((p) => p[0])), logX, 0.015);
    const ys = extent(seen.flatMap((s) => s.points.map((p) => p[1] ?? NaN)), logY, 0.05);
    const viewBox = `0 0 ${width} ${height}`;
    const drawing = svg("svg", { width, height, viewBox, role: "img", "aria-label": this.summary() });
    this.plot = null;
    if (xs && ys) {
      const box = { left: EDGE.left, right: width - EDGE.right, top: EDGE.top, bottom: height - EDGE.bottom };
      const x = scale(xs, box.left, box.right, logX);
      const y = scale(ys, box.bottom, box.top, logY);
      this.plot = { box, x, y, width, height };
      drawing.append(this.axes(xs, ys), this.curves());
      this.pointer = svg("g", { class: "pointer" });
      drawing.append(this.pointer);
    } else {
      const middle = { x: width / 2, y: height / 2, "text-anchor": "middle" };
      drawing.append(svg("text", { class: "empty", ...middle }, this.options.empty));
    }
    this.frame.replaceChildren(drawing);
    this.tip.hidden = true;
  }

  /** The points inside the zoomed range: what the axes are fitted to. */
  visible() {
    const usable = (p) => !this.options.logX || p[0] > 0;
    if (!this.zoom) return this.series.map((s) => ({ ...s, points: s.points.filter(usable) }));
    const [low, high] = this.zoom;
    return this.series.map((s) => ({ ...s, points: s.points.filter((p) => usable(p) && p[0] >= low && p[0] <= high) }));
  }

  summary() {
    const names = this.series.map((s) => s.label).slice(0, 12).join(", ");
    return `${this.options.yLabel} over ${this.options.xLabel}: ${this.series.length} curves. ${names}`;
  }

  axes(xs, ys) {
    const { box, x, y } = this.plot;
    const group = svg("g", { class: "axes" });
    for (const v of ticks(xs, Math.max(4, Math.floor((box.right - box.left) / 95)), this.options.logX)) {
      const at = x(v);
      group.append(svg("line", { class: "grid", x1: at, x2: at, y1: box.top, y2: box.bottom }));
      group.append(svg("text", { x: at, y: box.bottom + 16, "text-anchor": "middle" }, this.xText(v)));
    }
    for (const v of ticks(ys, Math.max(3, Math.floor((box.bottom - box.top) / 55)), this.options.logY)) {
      const at = y(v);
      group.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: at, y2: at }));
      group.append(svg("text", { x: box.left - 8, y: at + 4, "text-anchor": "end" }, String(Number(v.toPrecision(6)))));
    }
    group.append(svg("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
    const middle = (box.top + box.bottom) / 2;
    const up = `rotate(-90 14 ${middle})`;
    const label = { class: "label", "text-anchor": "middle" };
    group.append(svg("text", { ...label, x: (box.left + box.right) / 2, y: box.bottom + 36 }, this.options.xLabel));
    group.append(svg("text", { ...label, x: 14, y: middle, transform: up }, this.options.yLabel));
    return group;
  }

  curves() {
    const { box } = this.plot;
    const [width, height] = [box.right - box.left, box.bottom - box.top + 8];
    const clip = svg("clipPath", { id: "plot-area" }, svg("rect", { x: box.left, y: box.top - 4, width, height }));
    const group = svg("g", { "clip-path": "url(#plot-area)" });
    for (const s of this.series) {
      const name = `curve ${s.colour}${s.faint ? " faint" : ""}`;
      const line = svg("path", { class: name, d: this.path(s.points), "stroke-dasharray": s.dash || null });
      line.dataset.id = s.id;
      group.append(line);
      if (s.dots && s.points.length <= 60) group.append(...this.dots(s));
    }
    return svg("g", {}, svg("defs", {}, clip), group);
  }

  path(points) {
    const { x, y } = this.plot;
    let d = "", pen = "M";
    for (const p of points) {
      const at = this.position(p, x, y);
      if (at === null) pen = "M";
      else {
        d += `${pen}${at[0].toFixed(1)} ${at[1].toFixed(1)}`;
        pen = "L";
      }
    }
    return d;
  }

  dots(s) {
    const spots = s.points.map((p) => this.position(p, this.plot.x, this.plot.y)).filter((at) => at !== null);
    return spots.map(([cx, cy]) => {
      const dot = svg("circle", { class: `dot ${s.colour}`, cx: cx.toFixed(1), cy: cy.toFixed(1), r: 2.2 });
      dot.dataset.id = s.id;
      return dot;
    });
  }

  /** Where a point is drawn; null for a gap, or what a log axis can't show. */
  position([px, py], x, y) {
    if (py === null || !Number.isFinite(px) || (this.options.logX && px <= 0) || (this.options.logY && py <= 0)) return null;
    return [x(px), y(py)];
  }

  // ---- under the pointer

  point(event) {
    if (!this.plot) return;
    const { box } = this.plot;
    const area = this.frame.getBoundingClientRect();
    const at = Math.min(Math.max(event.clientX - area.left, box.left), box.right);
    if (this.pressed !== undefined) return this.drawSelection(at);
    const nearest = this.series.map((s) => this.nearest(s, at)).filter((hit) => hit !== null);
    if (!nearest.length) return this.leave();
    const first = nearest.reduce((a, b) => (Math.abs(a.at[0] - at) <= Math.abs(b.at[0] - at) ? a : b));
    const hits = nearest.filter((hit) => Math.abs(hit.at[0] - first.at[0]) <= BESIDE);
    const line = svg("line", { class: "cross", x1: first.at[0], x2: first.at[0], y1: box.top, y2: box.bottom });
    const marks = hits.map(({ s, at: [cx, cy] }) => svg("circle", { class: `mark ${s.colour}`, cx, cy, r: 3.5 }));
    this.pointer.replaceChildren(line, ...marks);
    this.showTip(hits, first);
  }

  nearest(s, at) {
    let best = null, distance = Infinity;
    for (const p of s.points) {
      const spot = this.position(p, this.plot.x, this.plot.y);
      if (spot !== null && Math.abs(spot[0] - at) < distance) {
        distance = Math.abs(spot[0] - at);
        best = { s, p, at: spot };
      }
    }
    return best;
  }

  showTip(hits, first) {
    const rows = [...hits].sort((a, b) => b.p[1] - a.p[1]);
    const shown = rows.slice(0, READ_OUT).map(({ s, p }) =>
      element("tr", {},
        element("td", {}, element("span", { class: `swatch ${s.colour}${s.faint ? " faint" : ""}` })),
        element("td", { class: "name" }, s.label),
        element("td", { class: "number" }, this.yText(p[1]))));
    const more = rows.slice(READ_OUT, READ_OUT + 1).map(() =>
      element("tr", {}, element("td", { colspan: 3 }, `and ${rows.length - READ_OUT} more`)));
    const head = element("div", { class: "tip-head" }, `${this.options.xLabel} ${this.xText(first.p[0], true)}`);
    this.tip.replaceChildren(head, element("table", {}, ...shown, ...more));
    this.tip.hidden = false;
    const { width } = this.plot;
    const right = first.at[0] + 14;
    const left = right + this.tip.offsetWidth > width ? first.at[0] - 14 - this.tip.offsetWidth : right;
    this.tip.style.left = `${Math.max(left, 0)}px`;
    this.tip.style.top = `${EDGE.top}px`;
  }

  leave() {
    this.pressed = undefined;
    this.tip.hidden = true;
    this.pointer?.replaceChildren();
  }

  // ---- zoom: drag across a range; a double click shows all again

  press(event) {
    if (!this.plot || event.pointerType !== "mouse" || event.button !== 0) return;
    const { box } = this.plot;
    const at = event.clientX - this.frame.getBoundingClientRect().left;
    if (at >= box.left && at <= box.right) this.pressed = at;
    event.preventDefault();
  }

  drawSelection(at) {
    const { box } = this.plot;
    const [x, width] = [Math.min(at, this.pressed), Math.abs(at - this.pressed)];
    this.tip.hidden = true;
    this.pointer.replaceChildren(svg("rect", { class: "selection", x, y: box.top, width, height: box.bottom - box.top }));
  }

  release(event) {
    if (this.pressed === undefined || !this.plot) return;
    const { box, x } = this.plot;
    const at = Math.min(Math.max(event.clientX - this.frame.getBoundingClientRect().left, box.left), box.right);
    const from = this.pressed;
    this.leave();
    if (Math.abs(at - from) < 6) return;
    this.zoom = [x.invert(Math.min(at, from)), x.invert(Math.max(at, from))];
    this.render();
  }
}
