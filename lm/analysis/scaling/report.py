"""The report of a law: what was fitted, how sure it is, what it foretells, and where it fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lm.analysis.report import Code, Plot, Report, Section, Table
from lm.analysis.scaling import figures
from lm.analysis.scaling.bootstrap import Bootstrap
from lm.analysis.scaling.fitting import Fit
from lm.analysis.scaling.holdout import rolling
from lm.analysis.scaling.isoflop import IsoFLOP, isoflop
from lm.analysis.scaling.optimum import best_sizes, extrapolation
from lm.analysis.scaling.runs import RunTable
from lm.analysis.tables import TableError, numbers
from lm.analysis.text import Column

Item = str | Code | Table | Plot
BEYOND = 100.0  # the largest budget in the table, as a multiple of the largest run's


@dataclass(frozen=True)
class Findings:
    """All that a report is made from."""

    fit: Fit
    boot: Bootstrap
    iso: IsoFLOP | None
    iso_why: str  # why there is no IsoFLOP analysis
    rolled: pd.DataFrame

    @property
    def allocates(self) -> bool:
        """Whether the law is one of size and tokens, so that a budget can be divided."""
        return {"params", "tokens"} <= set(self.fit.law.columns) and self.fit.law.target == "loss"


def findings(runs: RunTable, fit: Fit, n: int = 1000, seed: int = 0) -> Findings:
    """Everything that is computed for a report."""
    iso, why = None, ""
    try:
        iso = isoflop(runs)
    except TableError as error:
        why = str(error)
    how = {"objective": fit.how.kind, "delta": fit.how.delta, "on": fit.how.on, "starts": 64}
    rolled = rolling(runs, fit.law, **how) if "flops" in runs.frame.columns else pd.DataFrame()
    return Findings(fit, fit.bootstrap(n, seed), iso, why, rolled)


def scaling_report(found: Findings, *, title: str, question: str = "", command: str = "") -> Report:
    """The report of a fit."""
    fit = found.fit
    asked: list[Item] = [question] if question else []
    asked += [Code(command)] if command else []
    sections = [
        Section(heading="Question", items=tuple(asked)),
        Section(heading="Answer", items=tuple(answer(found))),
        Section(heading="The law", items=(_law_words(fit), _parameter_table(found.boot))),
        Section(heading="Best size for a budget", items=tuple(_budget_items(found))),
        Section(heading="IsoFLOP curves", items=tuple(_iso_items(found)), terminal=False),
        Section(heading="Foretelling larger runs", items=tuple(_rolling_items(found.rolled))),
        Section(heading="Residuals", items=tuple(_residual_items(fit)), terminal=False),
        Section(heading="How sure it is", items=tuple(_cloud_items(found)), terminal=False),
        Section(heading="Notes", items=tuple(notes(found))),
        Section(
            heading="Runs", items=(Table(name="runs", frame=_shown(fit), caption="All runs fitted."),), terminal=False
        ),
    ]
    return Report(title=title, sections=tuple(s for s in sections if s.items))


def answer(found: Findings) -> list[str]:
    """The findings in words."""
    fit, boot = found.fit, found.boot
    said = []
    if "a" in fit.derived:
        low, high = boot.interval("a")
        said.append(
            f"By the law, the best size grows as FLOPs^{fit.derived['a']:.3f} [{low:.3f}, {high:.3f}] and the tokens "
            f"as FLOPs^{1 - fit.derived['a']:.3f} (95% intervals, {len(boot.thetas)} resamples)."
        )
    if found.iso is not None:
        low, high = found.iso.interval()
        text = f"By the parabolas of equal FLOPs, as FLOPs^{found.iso.exponent:.3f} [{low:.3f}, {high:.3f}]"
        if "a" in fit.derived:
            ours = boot.interval("a")
            agree = low <= ours[1] and ours[0] <= high
            text += "; the intervals overlap" if agree else "; the two ways do not agree, so neither is to be relied on"
        said.append(text + ".")
    floor = fit.law.floor
    if fit.law.target == "loss" and floor in fit.params:
        low, high = boot.interval(floor)
        said.append(f"No model of this kind falls below {fit.params[floor]:.3f} [{low:.3f}, {high:.3f}] nats a token.")
    said.append(
        f"It misses the {len(fit.runs)} runs by {np.mean(np.abs(fit.relative_errors)):.2%} of their loss on average."
    )
    return said


def notes(found: Findings) -> list[str]:
    """What a reader has to know before using any of it."""
    fit = found.fit
    said = [*fit.runs.notes, *fit.notes, *found.boot.notes]
    if found.iso is not None:
        said += found.iso.notes
        edge = [f"{row['C']:.2g}: {row['warnings']}" for row in found.iso.optima.to_dict("records") if row["warnings"]]
        said += [f"Budgets with a warning: {'; '.join(edge)}."] if edge else []
    elif found.iso_why:
        said.append(f"No IsoFLOP curves: {found.iso_why}.")
    formula = {"6ND": "6 x parameters x tokens", "exact": "counted exactly"}.get(fit.runs.formula, fit.runs.formula)
    if "flops" in fit.runs.frame.columns:
        said.append(f"FLOPs: {formula}. Optima are for FLOPs = 6 x parameters x tokens, whatever `params` counts.")
    return [_sentence(text) for text in said]


def _sentence(text: str) -> str:
    word = text.split(" ", 1)[0]
    text = text[:1].upper() + text[1:] if word.isalpha() and len(word) > 3 else text
    return text + ("" if text.endswith((".", "!", "?", ")")) else ".")


def _law_words(fit: Fit) -> str:
    doc = " ".join((fit.law.__doc__ or "").split())
    agreement = f"{fit.agreement:.0%} of {fit.starts} starts came to this optimum"
    source = f" ({fit.law.source})" if fit.law.source else ""
    return f"{fit.law.name}{source}: {doc} Fitted by {fit.how}, {fit.objective:.10g} at the optimum; {agreement}."


def _parameter_table(boot: Bootstrap) -> Table:
    fit = boot.fit
    rows = []
    for name in (*fit.params, *fit.derived):
        low, high = boot.interval(name)
        rows.append(
            {"name": name, "value": fit.number(name), "low": low, "high": high, "se": boot.standard_error(name)}
        )
    columns = (
        Column("parameter", ("{name}",)),
        Column("value", ("{value:.6g}",)),
        Column("95% interval", ("[{low:.4g}, {high:.4g}]",)),
        Column("standard error", ("{se:.3g}",)),
    )
    kind = "models" if boot.cluster else "runs"
    caption = f"Intervals: {len(boot.thetas)} resamples of {kind}, percentiles."
    return Table(name="parameters", frame=pd.DataFrame(rows), columns=columns, caption=caption)


def _budget_items(found: Findings) -> list[Item]:
    fit, boot = found.fit, found.boot
    if not found.allocates or len(fit.law.columns) > 2:
        return []
    flops = fit.runs.column("flops")
    first = int(np.floor(np.log10(flops.min())))
    last = int(np.floor(np.log10(flops.max() * BEYOND)))
    budgets = 10.0 ** np.arange(max(first, last - 7), last + 1)
    rows: list[dict[str, Any]] = []
    draws = np.array([_best(fit.moved(theta), budgets) for theta in boot.thetas[: figures.DRAWS]])  # [draws, 3, n]
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    best = _best(fit, budgets)
    for i, budget in enumerate(budgets):
        row: dict[str, Any] = {"flops": budget, "ratio": best[1, i] / best[0, i]}
        for k, name in enumerate(("params", "tokens", "loss")):
            row |= {name: best[k, i], f"{name}_low": low[k, i], f"{name}_high": high[k, i]}
        rows.append(row | {"far": "far beyond the runs" if extrapolation(fit, budget) else ""})
    columns = (
        Column("FLOPs", ("{flops:.0e}",)),
        Column("parameters", ("{params:si} [{params_low:si}, {params_high:si}]",)),
        Column("tokens", ("{tokens:si} [{tokens_low:si}, {tokens_high:si}]",)),
        Column("tokens a parameter", ("{ratio:.3g}",)),
        Column("loss", ("{loss:.3f} [{loss_low:.3f}, {loss_high:.3f}]",)),
        Column("", ("{far}",)),
    )
    table = Table(name="budgets", frame=pd.DataFrame(rows), columns=columns, caption="The law's best use of a budget.")
    return [
        table,
        Plot(name="frontier", figure=figures.frontier_figure(fit, boot), caption="What compute buys."),
        Plot(name="contour", figure=figures.contour_figure(fit), caption="The law's loss over size and tokens."),
    ]


def _best(fit: Fit, flops: np.ndarray) -> np.ndarray:
    """The best sizes, their tokens and their losses [3, n] for budgets [n]."""
    params, _ = best_sizes(fit, flops)
    tokens = flops / (6 * params)
    return np.stack([params, tokens, fit.predict(params=params, tokens=tokens)])


def _iso_items(found: Findings) -> list[Item]:
    if found.iso is None:
        return []
    columns = (
        Column("FLOPs", ("{C:.2e}",)),
        Column("runs", ("{runs:d}",)),
        Column("best size", ("{N_opt:si}",)),
        Column("its tokens", ("{D_opt:si}",)),
        Column("loss", ("{loss:.4f}",)),
        Column("warnings", ("{warnings}",)),
    )
    figure = Plot(
        name="isoflop", figure=figures.isoflop_figure(found.iso), caption="Approach 2 of Hoffmann et al. 2022."
    )
    return [
        figure,
        Table(name="optima", frame=found.iso.optima, columns=columns, caption="Budgets and their best sizes."),
    ]


def _rolling_items(rolled: pd.DataFrame) -> list[Item]:
    if not len(rolled) or not np.isfinite(numbers(rolled, "mean_relative_error")).any():
        return []
    columns = (
        Column("largest budget seen", ("1/{factor:.0f} of the largest",)),
        Column("runs fitted", ("{fitted:d}",)),
        Column("runs foretold", ("{tested:d}",)),
        Column("mean error", ("{mean_relative_error:.2%}",)),
        Column("too high by", ("{bias:+.2%}",)),
    )
    good = rolled.loc[rolled["mean_relative_error"].notna()]
    words = "The law fitted anew on the cheap runs alone, and tried on all dearer ones: the test that counts."
    return [words, Table(name="holdout", frame=good, columns=columns)]


def _residual_items(fit: Fit) -> list[Item]:
    if not {"params", "tokens", "flops"} <= set(fit.runs.frame.columns):
        return []
    worst = np.argsort(-np.abs(fit.relative_errors))[:5]
    frame = _shown(fit).iloc[worst].reset_index(drop=True)
    columns = (
        Column("parameters", ("{params:si}",)),
        Column("tokens", ("{tokens:si}",)),
        Column(fit.law.target, (f"{{{fit.law.target}:.4f}}",)),
        Column("by the law", ("{predicted:.4f}",)),
        Column("error", ("{relative_error:+.2%}",)),
    )
    return [
        Plot(name="residuals", figure=figures.residual_figure(fit), caption="A trend here is something the law lacks."),
        Table(name="worst", frame=frame, columns=columns, caption="The runs it misses most."),
    ]


def _cloud_items(found: Findings) -> list[Item]:
    names = [*found.fit.params, *found.fit.derived]
    wanted = [("A", "alpha"), ("B", "beta"), ("E", "a")]
    pairs = [pair for pair in wanted if set(pair) <= set(names)] or [(names[0], name) for name in names[1:4]]
    return [Plot(name="clouds", figure=figures.cloud_figure(found.boot, pairs), caption="Bootstrap.")]


def _shown(fit: Fit) -> pd.DataFrame:
    wanted: Sequence[str] = [
        *("params", "tokens", "unique_tokens", "flops", "model", "seed"),
        *(c for c in fit.law.columns if c not in ("params", "tokens", "unique_tokens", "flops")),
        fit.law.target,
    ]
    kept = [name for name in dict.fromkeys(wanted) if name in fit.runs.frame.columns]
    frame = fit.runs.frame.loc[:, kept].copy()
    return frame.assign(predicted=fit.predicted, relative_error=fit.relative_errors)
