// Numbers as people read them, and small helpers to make elements without ever parsing text as HTML.

const PREFIXES = ["", "k", "M", "G", "T", "P", "E"];

/** A number with an SI prefix and three digits: 1234567 -> 1.23M. */
export function si(x) {
  if (x === 0) return "0";
  const rounded = Math.abs(Number(x.toPrecision(3)));
  const power = Math.min(Math.max(Math.floor(Math.log10(rounded) / 3 + 1e-9), 0), PREFIXES.length - 1);
  if (power === 0) return String(Number(x.toPrecision(3)));
  const text = (x / 1000 ** power).toPrecision(3);
  return (text.includes("e") ? String(Number(text)) : text) + PREFIXES[power];
}

/** An SI number as a tick says it: 1.00M -> 1M. */
export const tick = (x) => si(x).replace(/(\.\d*?)0+(?=\D*$)/, "$1").replace(/\.(?=\D*$)/, "");

export const whole = (x) => x.toLocaleString("en-US", { maximumFractionDigits: 0 });

/** Seconds: 8s, 3m20s, 2h05m, 3d04h. */
export function duration(seconds) {
  const s = Math.round(seconds);
  const two = (n) => String(n).padStart(2, "0");
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m${two(s % 60)}s`;
  const minutes = Math.round(s / 60);
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)}h${two(minutes % 60)}m`;
  const hours = Math.round(s / 3600);
  return `${Math.floor(hours / 24)}d${two(hours % 24)}h`;
}

/** A value of a config or a point: numbers short, words as they are. */
export function plain(value) {
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return String(value);
  const size = Math.abs(value);
  const short = Number(value.toPrecision(6));
  return size < 1e-3 || size >= 1e6 ? short.toExponential() : String(short);
}

/** An element with attributes and children; text is always text. */
export function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}
