"""The figures of a scaling law."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from lm.analysis.scaling.bootstrap import Bootstrap
from lm.analysis.scaling.fitting import Fit
from lm.analysis.scaling.frontier import frontier
from lm.analysis.scaling.isoflop import IsoFLOP
from lm.analysis.scaling.optimum import best_losses, best_sizes
from lm.analysis.style import BASELINE, COLOURS, SOFT, canvas, si_axis, styled

SHADES = "viridis"
DRAWS = 200  # resamples that a band is drawn from
FLOPS = "training FLOPs"
LOSS = "loss (nats/token)"


@styled
def isoflop_figure(iso: IsoFLOP) -> Figure:
    """The loss over the size at each budget, its parabola and its lowest point; how that grows with the budget."""
    figure, (left, right) = canvas(13.0, 5.2, 2)
    colour = _by_flops(figure, left, iso.optima["C"].to_numpy(float))
    params, loss = iso.runs.column("params"), iso.runs.column("loss")
    for k, row in enumerate(iso.optima.to_dict("records")):
        mine = iso.labels == k
        shade = colour(row["C"])
        left.plot(params[mine], loss[mine], "o", color=shade, markersize=5, alpha=0.75, markeredgewidth=0)
        if np.isfinite(row["N_opt"]):
            at = np.geomspace(params[mine].min() / 1.2, params[mine].max() * 1.2, 100)
            left.plot(at, iso.parabola(k, at), color=shade, linewidth=1.4, alpha=0.9 if row["used"] else 0.4)
            mark = "*" if row["used"] else "x"
            left.plot(row["N_opt"], row["loss"], mark, color=shade, markeredgecolor=BASELINE, markersize=12, zorder=5)
            right.plot(row["C"], row["N_opt"], mark, color=shade, markeredgecolor=BASELINE, markersize=12, zorder=5)
    shown = [k for k, row in enumerate(iso.optima.to_dict("records")) if np.isfinite(row["N_opt"])]
    values = loss[np.isin(iso.labels, shown)]
    left.set_ylim(values.min() - 0.05 * np.ptp(values), np.quantile(values, 0.98) + 0.1 * np.ptp(values))
    _log_axis(left, "x", "parameters")
    left.set_ylabel(LOSS)
    left.set_title("dots: runs;  lines: parabolas;  stars: their lowest points", color=SOFT)
    good = iso.optima.loc[iso.optima["used"]]
    line = np.geomspace(good["C"].min() / 2, good["C"].max() * 2, 50)
    right.plot(line, [iso.params_at(c) for c in line], color=BASELINE, linewidth=1.6)
    _log_axis(right, "x", FLOPS)
    _log_axis(right, "y", "best size (parameters)")
    low, high = iso.interval()
    right.set_title(f"best size ~ FLOPs^{iso.exponent:.3f} [{low:.3f}, {high:.3f}]", color=SOFT)
    return figure


@styled
def contour_figure(fit: Fit) -> Figure:
    """The law's loss over size and tokens, with the runs, lines of equal compute and the best size of each."""
    figure, (axes,) = canvas(8.6, 6.2)
    params, tokens = fit.runs.column("params"), fit.runs.column("tokens")
    x = np.geomspace(params.min() / 2, params.max() * 2, 160)
    y = np.geomspace(tokens.min() / 2, tokens.max() * 2, 160)
    grid = np.asarray(fit.predict(params=x[None, :], tokens=y[:, None], **_others(fit)))
    levels = np.quantile(grid, np.linspace(0.02, 0.98, 14))
    lines = axes.contour(x, y, grid, levels=levels, cmap=SHADES + "_r", linewidths=1.4)
    axes.clabel(lines, fmt="%.3g", fontsize=10)
    seen = fit.runs.column("flops")
    for flops in np.geomspace(seen.min(), seen.max(), 5):
        axes.plot(x, flops / (6 * x), ":", color=SOFT, linewidth=1.1)
    budgets = np.geomspace(6 * x[0] * y[0], 6 * x[-1] * y[-1], 40)
    best, _ = best_sizes(fit, budgets, **_others(fit))
    axes.plot(best, budgets / (6 * best), color=COLOURS[1], linewidth=2.4)
    axes.plot(params, tokens, "o", color=BASELINE, markersize=4.5, alpha=0.6, markeredgewidth=0)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    _log_axis(axes, "x", "parameters")
    _log_axis(axes, "y", "tokens")
    axes.set_title("lines: equal loss;  dotted: equal FLOPs;  orange: best size;  dots: runs", color=SOFT)
    return figure


@styled
def frontier_figure(fit: Fit, boot: Bootstrap | None = None, beyond: float = 10.0) -> Figure:
    """The loss over compute: runs, those that no cheaper one beats, and what the law says is the best."""
    figure, (axes,) = canvas(8.6, 5.4)
    flops, loss = fit.runs.column("flops"), fit.runs.column("loss")
    axes.plot(flops, loss, "o", color=SOFT, markersize=5, alpha=0.45, markeredgewidth=0, label="runs")
    best = frontier(fit.runs)
    axes.plot(
        best.column("flops"), best.column("loss"), "o", color=COLOURS[0], markersize=5, label="no cheaper run is better"
    )
    at = np.geomspace(flops.min(), flops.max() * beyond, 40)
    axes.plot(at, best_losses(fit, at, **_others(fit)), color=COLOURS[1], label="best by the law")
    if boot is not None:
        draws = np.array([best_losses(fit.moved(theta), at, **_others(fit)) for theta in boot.thetas[:DRAWS]])
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
        axes.fill_between(at, low, high, color=COLOURS[1], alpha=0.2, linewidth=0, label="its 95% interval")
    axes.axvline(flops.max(), color=SOFT, linestyle=":", linewidth=1.2)
    _log_axis(axes, "x", FLOPS)
    axes.set_ylabel(LOSS)
    axes.set_ylim(None, np.quantile(loss, 0.99) + 0.05 * np.ptp(loss))
    axes.legend()
    axes.set_title("right of the dotted line: no run was that large", color=SOFT)
    return figure


@styled
def residual_figure(fit: Fit) -> Figure:
    """What the law misses by: over compute, over tokens per parameter, and how often."""
    figure, panels = canvas(13.0, 4.4, 3)
    errors = 100 * fit.relative_errors
    ratio = fit.runs.column("tokens") / fit.runs.column("params")
    for axes, x, words in ((panels[0], fit.runs.column("flops"), FLOPS), (panels[1], ratio, "tokens a parameter")):
        axes.axhline(0, color=BASELINE, linewidth=1.2)
        axes.plot(x, errors, "o", color=COLOURS[0], markersize=5, alpha=0.6, markeredgewidth=0)
        _log_axis(axes, "x", words)
        axes.set_ylabel("predicted - observed (%)")
    panels[2].hist(errors, bins=min(40, max(8, len(errors) // 6)), color=COLOURS[0], alpha=0.8)
    panels[2].set_xlabel("predicted - observed (%)")
    panels[2].set_ylabel("runs")
    panels[0].set_title(f"mean size {np.mean(np.abs(errors)):.2f}%", color=SOFT)
    return figure


@styled
def cloud_figure(boot: Bootstrap, pairs: Sequence[tuple[str, str]]) -> Figure:
    """What resamples of the runs give, parameter against parameter: long thin clouds are parameters that make up for
    one another."""
    figure, panels = canvas(4.4 * len(pairs) + 0.4, 4.4, len(pairs))
    for axes, (a, b) in zip(panels, pairs, strict=True):
        x, y = boot.draws(a), boot.draws(b)
        axes.plot(x, y, "o", color=COLOURS[0], markersize=3, alpha=0.25, markeredgewidth=0)
        axes.plot(
            boot.fit.number(a), boot.fit.number(b), "*", color=COLOURS[1], markeredgecolor=BASELINE, markersize=15
        )
        for values, which in ((x, "x"), (y, "y")):
            if values.min() > 0 and values.max() / values.min() > 10:
                axes.set_xscale("log") if which == "x" else axes.set_yscale("log")
        axes.set_xlabel(a)
        axes.set_ylabel(b)
    panels[0].set_title(f"dots: {len(boot.thetas)} resamples;  star: the fit", color=SOFT)
    return figure


def _others(fit: Fit) -> dict[str, float]:
    """A law's columns besides size and tokens, at their medians."""
    return {n: float(np.median(fit.runs.column(n))) for n in fit.law.columns if n not in ("params", "tokens")}


def _by_flops(figure: Figure, axes: Axes, flops: np.ndarray) -> Callable[[float], Any]:
    """Draws the scale of colours beside the axes; the colour of a budget."""
    scale: Any = ScalarMappable(LogNorm(flops.min(), flops.max()), colormaps[SHADES].reversed())
    bar = figure.colorbar(scale, ax=axes, label=FLOPS, pad=0.01, aspect=30)
    bar.ax.minorticks_off()
    return scale.to_rgba


def _log_axis(axes: Axes, which: str, words: str) -> None:
    axes.set_xscale("log") if which == "x" else axes.set_yscale("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_label_text(words)
    axis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    if high / low < 100:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    if words != FLOPS:
        si_axis(axes, which)
