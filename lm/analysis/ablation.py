"""The report of an ablation: what was asked, what was found, how sure it is, and the runs behind every number."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from lm.analysis.compute import compute_items
from lm.analysis.curves import curve_differences, loss_curves
from lm.analysis.figures import DecodePoint, decode_speed, longest_context, loss_by_arm, paired_differences, tradeoff
from lm.analysis.paired import ArmResult, Comparison, compare, mean_interval
from lm.analysis.report import Code, Plot, Report, Section, Table
from lm.analysis.style import ArmStyle, arm_styles
from lm.analysis.tables import arm_names, has, median, numbers, of_arm
from lm.analysis.text import Column, either, is_missing, si
from lm.analysis.watched import watched_items

# what a model costs: equal for all seeds of an arm, and often for all arms
COSTS = {
    "params": "parameters",
    "flops_per_token": "FLOPs/token",
    "kv_bytes_per_token": "KV bytes/token",
}
FEW_SEEDS = 3  # below it, a mean and a spread say next to nothing
LONG_ENOUGH = 20  # tokens a parameter, where compute is best spent (Hoffmann et al. 2022, arXiv 2203.15556)
Item = str | Code | Table | Plot


def ablation_report(
    *,
    title: str,
    question: str,
    baseline: str,
    runs: pd.DataFrame,
    curves: pd.DataFrame | None,
    decode: pd.DataFrame | None = None,
    counted: pd.DataFrame | None = None,
    notes: Sequence[str] = (),
    command: str = "",
    value: str = "heldout_loss",
    confidence: float = 0.95,
) -> Report:
    """The report of an ablation over any part of the model.

    `runs` has a row for each run: arm, seed, `value`, and as far as they are known id, status, params,
    flops_per_token, kv_bytes_per_token, tokens, heldout_bpb, tokens_per_second (and its range,
    tokens_per_second_low and _high), seconds. `curves`: arm, seed, step, tokens, split ("train", "heldout"), loss.
    `decode`: arm, context, batch, tokens_per_second, low, high, device. `counted`: n-gram models beside the arms:
    order, seed, bits_per_byte, tokens, ngrams, seconds.
    What a table lacks is said to be missing; it is never 0.
    Raises TableError for an unknown baseline, or tables without what a comparison needs.
    """
    result = compare(runs, baseline, value, confidence)
    styles = arm_styles(arm_names(runs), baseline)
    point = longest_context(decode)
    main = arm_table(runs, result, point)
    asked: list[Item] = [question] if question else []
    asked += [Code(command)] if command else []
    sections = [
        Section(heading="Question", items=tuple(asked)),
        Section(heading="Answer", items=tuple(headlines(result, main, point))),
        Section(heading="Arms", items=tuple(_main_section(main, result, point))),
        Section(heading="Compute", items=tuple(_compute_items(runs, curves, counted, styles))),
        Section(heading="Inside", items=tuple(watched_items(curves))),
        Section(heading="Loss", items=tuple(_loss_items(runs, curves, result, styles)), terminal=False),
        Section(heading="Speed and memory", items=tuple(_cost_items(runs, decode, result, styles)), terminal=False),
        Section(heading="Seeds", items=tuple(_seed_items(runs, result)), terminal=False),
        Section(heading="Notes", items=tuple([*result.notes, *_cautions(runs, result), *notes])),
        Section(heading="How to read this", items=how_to_read(result), terminal=False),
        Section(heading="Provenance", items=(provenance(runs, value),), terminal=False),
    ]
    return Report(title=title, sections=tuple(s for s in sections if s.items))


# ---- words ---------------------------------------------------------------------------------------------------


def headlines(result: Comparison, main: pd.DataFrame, point: DecodePoint | None) -> list[str]:
    """A sentence for each arm: the verdict, the size of the difference and how sure it is, and what it costs."""
    rows = {str(row["arm"]): row for row in main.to_dict("records")}
    base = rows[result.baseline]
    most = max(r.n for r in result.arms)
    few = f"CAUTION: {either(most, 'seed')} an arm {'is' if most == 1 else 'are'} too few to decide anything."
    found = [f"{_verdict(r, result)}{_costs(rows[r.arm], base, result.baseline, point)}" for r in result.others]
    return [few, *found] if 0 < most < FEW_SEEDS else found


def _verdict(r: ArmResult, result: Comparison) -> str:
    unit = " nats/token" if result.value == "heldout_loss" else f" in {result.value}"
    if r.pairs == 0:
        reason = "no finished run" if r.n == 0 else f"no seed in common with {result.baseline}"
        return f"{r.arm}: nothing can be said, {reason}."
    if r.pairs == 1:
        return f"{r.arm} against {result.baseline} is {r.verdict}. The one difference is {r.difference:+.4f}{unit}."
    numbers = (
        f"{r.difference:+.4f}{unit}, {result.confidence:.0%} interval {r.low:+.4f} to {r.high:+.4f}, "
        f"{either(r.pairs, 'seed')}, p {_p(r.p_holm)}"
    )
    compared = sum(other.pairs > 1 for other in result.others)
    numbers += f" corrected for {compared} comparisons" if compared > 1 else ""
    if r.verdict in ("better", "worse"):
        return f"{r.arm} is {r.verdict} than {result.baseline}: {numbers}."
    return f"{r.arm} against {result.baseline} is {r.verdict} ({numbers})."


def _p(p: float) -> str:
    return "below 0.0001" if p < 1e-4 else f"= {p:.2g}"


def _costs(row: dict, base: dict, baseline: str, point: DecodePoint | None) -> str:
    parts = []
    kv, other = row["kv_bytes_per_token"], base["kv_bytes_per_token"]
    if not is_missing(kv) and not is_missing(other) and other > 0 and kv != other:
        parts.append(f"keeps {kv / other:.3g} times the KV bytes of {baseline}")
    fast, slow = row["decode_tokens_per_second"], base["decode_tokens_per_second"]
    if point and not is_missing(fast) and not is_missing(slow) and slow > 0:
        parts.append(f"decodes {fast / slow:.2g} times as fast as {baseline} at context {point.context:,}")
    return f" It {' and '.join(parts)}." if parts else ""


def how_to_read(result: Comparison) -> tuple[str, ...]:
    """What the numbers mean, for someone who sees such a report for the first time."""
    return (
        f"Arms differ in one part of the model. Each was trained once for every seed, and runs of one seed saw the "
        f"same batches in the same order in all arms, so a difference is taken inside each seed and then averaged. "
        f"The interval of a difference is Student's t at {result.confidence:.0%}: with another set of seeds, such "
        f"intervals would hold the true difference that often. It says nothing about other data, sizes or budgets.",
        "Lower loss is better. 'Better' and 'worse' are said only where p, corrected by Holm's method for the number "
        f"of arms compared, is below {1 - result.confidence:.2g}. 'Not resolved' means that these seeds can't tell the "
        "arms apart, not that they are equal; the number of further seeds is what would shrink the interval below "
        "the difference seen here, if difference and spread stay as they are.",
        "The spread of an arm (after ±) is the standard deviation over seeds. 'dz' is the difference over the standard "
        "deviation of the paired differences; 'delta' is the difference over the baseline's spread: beside 1, it tells "
        "how the effect compares with what a change of seed alone does.",
    )


def _cautions(runs: pd.DataFrame, result: Comparison) -> list[str]:
    """What a reader should know about the comparison's fairness and that follows from the tables."""
    found = []
    seen = numbers(runs, "tokens")[[r == "done" for r in _status(runs)]]
    seen = seen[np.isfinite(seen)]
    if len(seen) and seen.min() != seen.max():
        found.append(f"The finished runs saw different numbers of tokens: {si(seen.min())} to {si(seen.max())}.")
    for column, words in COSTS.items():
        for arm in arm_names(runs):
            x = numbers(of_arm(runs, arm), column)
            if len(set(x[np.isfinite(x)].tolist())) > 1:
                found.append(f"The runs of {arm} differ in {words}; the table shows the median.")
    budget = median(numbers(runs, "tokens")) / median(numbers(runs, "params"))
    if budget < LONG_ENOUGH:
        found.append(
            f"The runs are short: {budget:.2g} tokens a parameter, where about {LONG_ENOUGH} are the best use of "
            "compute. Arms may rank otherwise in longer runs."
        )
    if has(runs, "kv_bytes_per_token"):
        found.append("KV bytes are at 2 bytes a number, whatever the runs computed in.")
    pairs = [r.pairs for r in result.others if r.pairs > 1]
    if pairs and min(pairs) < 4:
        found.append(
            f"With {either(min(pairs), 'pair')} of runs, the interval rests on the differences being normally "
            "distributed, which so few can't show."
        )
    return found


def _status(runs: pd.DataFrame) -> list[str]:
    return [str(s) for s in runs["status"].tolist()] if "status" in runs.columns else ["done"] * len(runs)


# ---- tables --------------------------------------------------------------------------------------------------


def arm_table(runs: pd.DataFrame, result: Comparison, point: DecodePoint | None) -> pd.DataFrame:
    """A row for each arm: its costs, the mismatch against the baseline in percent, losses and statistics, speeds."""
    table = result.table().rename(columns={"mean": result.value, "sd": f"{result.value}_sd"})
    ok = runs.loc[[s == "done" for s in _status(runs)]]
    for column in COSTS:
        values = [median(numbers(of_arm(runs, r.arm), column)) for r in result.arms]
        base = median(numbers(of_arm(runs, result.baseline), column))
        table[column] = values
        table[f"{column}_mismatch_percent"] = [
            100 * (v / base - 1) if base and r.arm != result.baseline else math.nan
            for r, v in zip(result.arms, values, strict=True)
        ]
    bits = [numbers(of_arm(ok, r.arm), "heldout_bpb") for r in result.arms]
    table["heldout_bpb"] = [mean_interval(x[np.isfinite(x)])[0] for x in bits]
    for column in ("tokens_per_second", "tokens_per_second_low", "tokens_per_second_high"):
        table[column] = [median(numbers(of_arm(ok, r.arm), column)) for r in result.arms]
    table["decode_context"] = point.context if point else math.nan
    table["decode_tokens_per_second"] = [point.speed.get(r.arm, math.nan) if point else math.nan for r in result.arms]
    return table


def _main_section(main: pd.DataFrame, result: Comparison, point: DecodePoint | None) -> list[Item]:
    v = result.value
    columns = [Column("arm", ("{arm}",))]
    same, missing = [], []
    for name, words in COSTS.items():
        values = numbers(main, name)
        if not np.isfinite(values).any():
            missing.append(words)
        elif len(set(values.tolist())) == 1:  # a NaN among them makes it two
            same.append(f"{values[0]:,.0f} {words}")
        else:
            number = "{" + name + (":,.0f}" if name == "kv_bytes_per_token" else ":si}")
            columns.append(Column(words, (number + " ({" + name + "_mismatch_percent:+.1f}%)", number)))
    columns += [
        Column("held-out loss" if v == "heldout_loss" else v, (f"{{{v}:.4f}} ± {{{v}_sd:.4f}}", f"{{{v}:.4f}}")),
        Column("n", ("{n:d}",)),
        Column("paired difference", ("{difference:+.4f} [{low:+.4f}, {high:+.4f}]", "{difference:+.4f}")),
        Column("verdict", ("{verdict}",)),
    ]
    speed = "{tokens_per_second:,.0f}"
    ranged = speed + " [{tokens_per_second_low:,.0f}, {tokens_per_second_high:,.0f}]"
    decoding = f"decode tokens/s at {point.context:,}" if point else "decode tokens/s"
    for name, column in {
        "heldout_bpb": Column("bits/byte", ("{heldout_bpb:.4f}",)),
        "tokens_per_second": Column("training tokens/s", (ranged, speed)),
        "decode_tokens_per_second": Column(decoding, ("{decode_tokens_per_second:,.0f}",)),
    }.items():
        if has(main, name) and name != v:
            columns.append(column)
        elif name != v:
            missing.append(column.heading)
    caption = (
        f"Mean ± standard deviation over seeds; difference to {result.baseline} inside each seed, "
        f"with its {result.confidence:.0%} interval. Percentages: against {result.baseline}."
    )
    caption += " Training tokens/s: the median and range over repeats." if has(main, "tokens_per_second_low") else ""
    items: list[Item] = [Table(name="arms", frame=main, caption=caption, columns=tuple(columns))]
    items += [f"The same for every arm: {', '.join(same)}."] if same else []
    items += [f"Missing, because the tables don't have it: {', '.join(missing)}."] if missing else []
    return items


def _decode_columns(decode: pd.DataFrame) -> tuple[Column, ...]:
    columns = {
        "arm": Column("arm", ("{arm}",)),
        "context": Column("context", ("{context:,.0f}",)),
        "batch": Column("batch", ("{batch:.0f}",)),
        "tokens_per_second": Column(
            "decode tokens/s", ("{tokens_per_second:,.0f} [{low:,.0f}, {high:,.0f}]", "{tokens_per_second:,.0f}")
        ),
        "device": Column("device", ("{device}",)),
    }
    return tuple(column for name, column in columns.items() if name in decode.columns)


def _seed_items(runs: pd.DataFrame, result: Comparison) -> list[Item]:
    """The value of every arm and seed, and each paired difference."""
    frame = pd.DataFrame(runs[["arm", "seed", result.value]]).assign(arm=[str(a) for a in runs["arm"].tolist()])
    frame["status"] = _status(runs)
    frame["difference"] = [
        result[arm].differences.get(seed, math.nan) if state == "done" else math.nan
        for arm, seed, state in zip(
            frame["arm"].tolist(), frame["seed"].tolist(), frame["status"].tolist(), strict=True
        )
    ]
    columns = (
        Column("arm", ("{arm}",)),
        Column("seed", ("{seed}",)),
        Column("status", ("{status}",)),
        Column("held-out loss" if result.value == "heldout_loss" else result.value, ("{" + result.value + ":.5f}",)),
        Column(f"difference to {result.baseline}", ("{difference:+.5f}",)),
    )
    effects = (
        Column("arm", ("{arm}",)),
        Column("pairs", ("{pairs:d}",)),
        Column("difference", ("{difference:+.5f}",)),
        Column("dz", ("{dz:+.2f}",)),
        Column("delta", ("{delta:+.2f}",)),
        Column("p", ("{p:.3g}",)),
        Column("p, Holm", ("{p_holm:.3g}",)),
    )
    seeds = "Every run, and its difference to the baseline's run of the same seed."
    tests = "Effects against the spread over seeds, and p values of the two-sided paired t test."
    return [
        Table(name="seeds", frame=frame, columns=columns, caption=seeds),
        Table(name="statistics", frame=result.table(), columns=effects, caption=tests),
    ]


def provenance(runs: pd.DataFrame, value: str, axes: Sequence[str] = ()) -> Table:
    """The run behind every number, with the columns `axes` too."""
    known = ["arm", "seed", *axes, "id", "status", "tokens", "seconds", value]
    known = [c for c in dict.fromkeys(known) if c in runs.columns or c == "id"]
    frame = pd.DataFrame({c: runs[c].tolist() if c in runs.columns else None for c in known}, index=runs.index)
    specs = {"tokens": ":,.0f", "seconds": ":,.1f", value: ":.4f"}
    columns = tuple(Column(c.replace("_", " "), ("{" + c + specs.get(c, "") + "}",)) for c in known)
    return Table(name="runs", frame=frame, columns=columns, caption="The runs that every number comes from, by id.")


# ---- figures -------------------------------------------------------------------------------------------------


def _loss_items(
    runs: pd.DataFrame, curves: pd.DataFrame | None, result: Comparison, styles: dict[str, ArmStyle]
) -> list[Item]:
    plot = loss_by_arm(runs, result, styles)
    items: list[Item] = [
        Plot(
            name="loss",
            figure=plot,
            caption="Held-out loss of every seed. A seed stands at the same height in every arm.",
        )
    ]
    if result.others:
        caption = (
            f"The difference to {result.baseline} inside each seed: this, not the overlap of the bars above, decides."
        )
        items.append(Plot(name="paired_difference", figure=paired_differences(result, styles), caption=caption))
    return items + curve_items(curves, styles, result.baseline)


def curve_items(curves: pd.DataFrame | None, styles: dict[str, ArmStyle], baseline: str | None = None) -> list[Item]:
    """Loss curves, and the differences to the baseline over training; or a sentence that they are missing."""
    if curves is None or not has(curves, "loss"):
        return ["Loss curves are missing: there is no table of them."]
    x = next((x for x in ("tokens", "step") if has(curves, x)), None)
    if x is None:
        return ["Loss curves are missing: their table has neither tokens nor steps."]
    caption = "Thick: the mean over seeds. Thin: single seeds. A run that stopped early isn't in the mean."
    items: list[Item] = [Plot(name="curves", figure=loss_curves(curves, styles, x), caption=caption)]
    heldout = curves.loc[[s == "heldout" for s in curves["split"].tolist()]]
    if baseline is not None and baseline in arm_names(heldout):
        figure = curve_differences(heldout, baseline, styles, x)
        caption = f"Held-out loss minus that of {baseline} over training, inside each seed: thin lines, and their mean."
        items += [Plot(name="curve_differences", figure=figure, caption=caption)] if figure else []
    return items


def _compute_items(
    runs: pd.DataFrame, curves: pd.DataFrame | None, counted: pd.DataFrame | None, styles: dict[str, ArmStyle]
) -> list[Item]:
    """Where arms spent the same compute on different amounts of text, or models that count stand beside them."""
    tokens = {median(numbers(of_arm(runs, arm), "tokens")) for arm in arm_names(runs)}
    return list(compute_items(curves, counted, styles)) if len(tokens) > 1 or counted is not None else []


def _cost_items(
    runs: pd.DataFrame, decode: pd.DataFrame | None, result: Comparison, styles: dict[str, ArmStyle]
) -> list[Item]:
    items: list[Item] = []
    if has(decode, "tokens_per_second") and decode is not None:
        caption = "Decoding with a cache: the median over repeats, and their range."
        items.append(Plot(name="decode", figure=decode_speed(decode, styles), caption=caption))
        items.append(Table(name="decode_speed", frame=decode, columns=_decode_columns(decode), caption=caption))
    else:
        items.append("Decoding speed is missing: it wasn't measured.")
    sizes = {median(numbers(of_arm(runs, r.arm), "kv_bytes_per_token")) for r in result.arms if r.n}
    known = {x for x in sizes if math.isfinite(x)}
    if not known:
        items.append("The trade-off figure is missing: there are no KV-cache sizes of finished arms.")
    elif len(sizes) == 1:
        items.append(f"All arms keep {known.pop():,.0f} bytes of KV cache per token, so there is no trade-off to draw.")
    elif figure := tradeoff(runs, result, decode, styles):
        caption = "Quality, memory and speed together: lower is better, further left is smaller."
        items.append(Plot(name="tradeoff", figure=figure, caption=caption))
    return items
