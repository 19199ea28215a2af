"""The figures of an ablation: losses, paired differences, decoding speed and what is paid for what."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lm.analysis.paired import Comparison
from lm.analysis.style import (
    SOFT,
    ArmStyle,
    arm_legend,
    arm_rows,
    arm_styles,
    canvas,
    log_if_wide,
    place_labels,
    power_of_two,
    si_axis,
    styled,
)
from lm.analysis.tables import TableError, arm_names, finished, median, need, number, numbers, of_arm, rows
from lm.analysis.text import si

UNITS = {"heldout_loss": "held-out loss (nats/token)", "heldout_bpb": "held-out loss (bits/byte)"}


def name_of(value: str) -> str:
    return UNITS.get(value, value)


def _styles(comparison: Comparison) -> dict[str, ArmStyle]:
    return arm_styles([r.arm for r in comparison.arms], comparison.baseline)


def _row_height(n: int, row: float = 0.52) -> float:
    return 1.5 + row * n


@styled
def loss_by_arm(runs: pd.DataFrame, comparison: Comparison, styles: Mapping[str, ArmStyle] | None = None) -> Figure:
    """Each seed's loss as a dot, and the arm's mean with its confidence interval."""
    styles = styles or _styles(comparison)
    good, _ = finished(runs, comparison.value)
    arms = [r.arm for r in comparison.arms]
    figure, (axes,) = canvas(8.6, _row_height(len(arms)))
    seeds = list(dict.fromkeys(run["seed"] for run in good))
    # a seed has the same height in every arm, so that pairs can be followed
    height = {s: 0.5 * (i / max(len(seeds) - 1, 1) - 0.5) if len(seeds) > 1 else 0.0 for i, s in enumerate(seeds)}
    for row, result in enumerate(comparison.arms):
        style = styles[result.arm]
        mine = [run for run in good if run["arm"] == result.arm]
        axes.plot(
            [run[comparison.value] for run in mine], [row + height[run["seed"]] for run in mine],
            "o", color=style.colour, markersize=5, alpha=0.45, markeredgewidth=0,
        )  # fmt: skip
        if result.n:
            bar = [[result.mean - result.mean_low], [result.mean_high - result.mean]] if result.n > 1 else None
            axes.errorbar(result.mean, row, xerr=bar, color=style.colour, marker=style.marker, capsize=4, linewidth=1.8)
        if result.n < 2:
            note = "one seed:\nno interval" if result.n else "no finished\nrun"
            axes.annotate(
                note, (1.01, row), xycoords=axes.get_yaxis_transform(), va="center", color=SOFT, fontsize=10.5
            )
    arm_rows(axes, arms)
    axes.margins(x=0.08)
    axes.set_xlabel(name_of(comparison.value))
    axes.set_title(f"dots: seeds;  mark and bar: mean with its {comparison.confidence:.0%} interval", color=SOFT)
    return figure


@styled
def paired_differences(
    comparison: Comparison, styles: Mapping[str, ArmStyle] | None = None, lower_is_better: bool = True
) -> Figure:
    """A forest plot: each arm's difference to the baseline, paired over seeds, with its interval and verdict."""
    styles = styles or _styles(comparison)
    others = comparison.others
    figure, (axes,) = canvas(10.0, _row_height(len(others), 0.66))
    axes.axvline(0, color=styles[comparison.baseline].colour, linewidth=1.4, zorder=1)
    for row, r in enumerate(others):
        style = styles[r.arm]
        axes.plot(
            list(r.differences.values()),
            [row + 0.24] * r.pairs,
            "o",
            color=style.colour,
            markersize=4.5,
            alpha=0.45,
            markeredgewidth=0,
        )
        if r.pairs > 1:
            axes.errorbar(
                r.difference, row, xerr=[[r.difference - r.low], [r.high - r.difference]],
                color=style.colour, marker=style.marker, capsize=4, linewidth=1.8,
            )  # fmt: skip
        axes.annotate(_difference_text(r), (1.02, row), xycoords=axes.get_yaxis_transform(), va="center", fontsize=10.5)
    arm_rows(axes, [r.arm for r in others])
    axes.margins(x=0.1)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -0.08 * (high - low)), max(high, 0.08 * (high - low)))
    better = "left" if lower_is_better else "right"
    axes.set_xlabel(f"{name_of(comparison.value)},\ndifference to {comparison.baseline}: {better} of 0 is better")
    axes.set_title(f"dots: seeds;  mark and bar: mean with its {comparison.confidence:.0%} interval", color=SOFT)
    return figure


def _difference_text(r: Any) -> str:
    if r.pairs == 0:
        return "no pair of finished runs"
    if r.pairs == 1:
        return f"{r.difference:+.4f}, one pair: no interval"
    verdict = r.verdict.replace(": ", ":\n", 1)
    return f"{r.difference:+.4f} [{r.low:+.4f}, {r.high:+.4f}]\n{verdict}"


@styled
def decode_speed(decode: pd.DataFrame, styles: Mapping[str, ArmStyle] | None = None) -> Figure:
    """Decoding tokens/s over context, a panel for each batch size: the median, and the range over repeats."""
    need(decode, ["arm", "context", "tokens_per_second"], "decode")
    styles = styles or arm_styles(arm_names(decode))
    table = [r for r in rows(decode) if math.isfinite(number(r["tokens_per_second"]))]
    if not table:
        raise TableError("the decode table has no finite tokens_per_second")
    batches = sorted({number(r.get("batch", 1)) for r in table})
    figure, panels = canvas(max(8.2, 5.0 * len(batches)), 4.8, len(batches))
    for axes, batch in zip(panels, batches, strict=True):
        here = [r for r in table if number(r.get("batch", 1)) == batch]
        for arm in dict.fromkeys(r["arm"] for r in here):
            mine = sorted((r for r in here if r["arm"] == arm), key=lambda r: number(r["context"]))
            x, y, low, high = (
                np.array([number(r.get(k)) for r in mine]) for k in ("context", "tokens_per_second", "low", "high")
            )
            style = styles[arm]
            axes.plot(x, y, color=style.colour, marker=style.marker, linestyle=style.dash)
            axes.fill_between(x, low, high, color=style.colour, alpha=0.15, linewidth=0)
            axes.vlines(x, low, high, color=style.colour, linewidth=1)
        contexts = sorted({number(r["context"]) for r in here})
        log_if_wide(axes, "x", contexts, ratio=4)
        si_axis(axes, "x", at=contexts)
        axes.set_xlabel("context (tokens)")
        axes.set_title(f"batch {batch:g}" if "batch" in decode.columns else "")
        speeds = [number(r["tokens_per_second"]) for r in here]
        log_if_wide(axes, "y", speeds, ratio=10)
        if axes.get_yscale() == "linear":
            axes.set_ylim(bottom=0)
        si_axis(axes, "y")
    panels[0].set_ylabel("decoding speed (tokens/s)")
    arm_legend(figure, styles, [a for a in styles if any(r["arm"] == a for r in table)])
    return figure


@dataclass(frozen=True, kw_only=True)
class DecodePoint:
    """Decoding speed of each arm at the longest context that all measured arms share."""

    context: int
    batch: int | None  # the largest one measured there; None where the table doesn't say
    speed: dict[str, float]


def longest_context(decode: pd.DataFrame | None) -> DecodePoint | None:
    """Decoding speed where it is hardest. None where nothing was measured, or the arms share no context."""
    if decode is None or not len(decode):
        return None
    need(decode, ["arm", "context", "tokens_per_second"], "decode")
    speeds: dict[str, dict[tuple[float, float], float]] = {}
    for row in rows(decode):
        speed = number(row["tokens_per_second"])
        if math.isfinite(speed):
            speeds.setdefault(row["arm"], {})[number(row["context"]), number(row.get("batch", -1))] = speed
    shared = set.intersection(*map(set, speeds.values())) if speeds else set()
    if not shared:
        return None
    at = max(shared)
    return DecodePoint(
        context=int(at[0]),
        batch=int(at[1]) if at[1] >= 0 else None,
        speed={arm: found[at] for arm, found in speeds.items()},
    )


@styled
def tradeoff(
    runs: pd.DataFrame,
    comparison: Comparison,
    decode: pd.DataFrame | None = None,
    styles: Mapping[str, ArmStyle] | None = None,
) -> Figure | None:
    """Held-out loss over KV-cache bytes per token, with each arm's decoding speed beside it.

    Bars are the intervals of the arms' own means. Arms with equal caches stand side by side, 5% apart.
    None where no finished arm has a known cache size.
    """
    styles = styles or _styles(comparison)
    point = longest_context(decode)
    spots = []
    for r in comparison.arms:
        kv = median(numbers(of_arm(runs, r.arm), "kv_bytes_per_token"))
        if r.n and math.isfinite(kv):
            spots.append((r, kv * 1.05 ** sum(kv == other for _, _, other in spots), kv))
    if not spots:
        return None
    figure, (axes,) = canvas(8.6, 5.4)
    for r, kv, _ in spots:
        style = styles[r.arm]
        bar = [[r.mean - r.mean_low], [r.mean_high - r.mean]] if r.n > 1 else None
        axes.errorbar(
            kv, r.mean, yerr=bar, color=style.colour, marker=style.marker, markersize=9, capsize=4, linewidth=1.4
        )
    sizes = sorted({kv for _, _, kv in spots})
    if sizes[0] > 0:
        axes.set_xscale("log", base=2)
        axes.set_xlim(sizes[0] / 1.8, sizes[-1] * 1.8)
    else:
        axes.margins(x=0.2)
    si_axis(axes, "x", at=sizes if _apart(sizes) else None)
    axes.margins(y=0.2)
    axes.set_xlabel("KV cache (bytes per token)")
    axes.set_ylabel(name_of(comparison.value))
    if point:
        batch = f", batch {point.batch}" if point.batch else ""
        axes.set_title(f"labels: decoding tokens/s at context {power_of_two(point.context)}{batch}", color=SOFT)
    labels = []
    for r, kv, _ in spots:
        speed = point.speed.get(r.arm) if point else None
        labels.append((kv, r.mean, r.arm + (f"\n{si(speed)} tok/s" if speed is not None else ""), styles[r.arm].colour))
    place_labels(figure, axes, labels, bars=[(kv, r.mean_low, r.mean_high) for r, kv, _ in spots if r.n > 1])
    return figure


def _apart(sizes: list[float]) -> bool:
    """True if ticks at all the sizes don't run into each other."""
    return len(sizes) <= 6 and all(b / a > 1.3 for a, b in itertools.pairwise(sizes) if a > 0)
