// Axes: from numbers to pixels and back, and where ticks go.

/** A map from [low, high] to [from, to] pixels, linear or logarithmic, with its inverse. */
export function scale([low, high], from, to, log) {
  const f = log ? Math.log10 : (v) => v;
  const g = log ? (v) => 10 ** v : (v) => v;
  const a = f(low), b = f(high);
  const at = (v) => from + ((f(v) - a) / (b - a)) * (to - from);
  at.invert = (pixel) => g(a + ((pixel - from) / (to - from)) * (b - a));
  return at;
}

/** The range of finite values (positive ones on a log axis) with a margin on both sides; null if there are none. */
export function extent(values, log, margin) {
  let low = Infinity, high = -Infinity;
  for (const v of values) {
    if (!Number.isFinite(v) || (log && v <= 0)) continue;
    if (v < low) low = v;
    if (v > high) high = v;
  }
  if (low > high) return null;
  if (log) {
    const ratio = low === high ? 1.25 : (high / low) ** margin;
    return [low / ratio, high * ratio];
  }
  const room = low === high ? Math.abs(low) * 0.1 || 1 : (high - low) * margin;
  return [low - room, high + room];
}

/** Round numbers inside [low, high], about `count` of them. */
export function ticks([low, high], count, log) {
  if (log && high / low > 30) {
    const decades = Math.log10(high / low);
    const every = Math.max(1, Math.ceil(decades / count));
    const inside = decades < count / 3 ? [1, 2, 5] : decades < count / 2 ? [1, 3] : [1];
    const found = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e += 1) {
      if (e % every === 0) found.push(...inside.map((m) => m * 10 ** e));
    }
    return found.filter((v) => v >= low && v <= high);
  }
  const rough = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) found.push(k * step);
  return found;
}
