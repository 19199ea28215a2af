"""From the results of an experiment to its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from lm.infer.speed import decode_speed
from lm.sweep.experiment import Ablation, Sweep
from lm.sweep.file import ExperimentFile
from lm.sweep.manifest import Entry
from lm.sweep.tables import curves_table, runs_table
from lm.train.speed import training_speeds

if TYPE_CHECKING:
    import pandas as pd

    from lm.analysis.report import Report

DECODE_BATCH = 4


def report(file: ExperimentFile, entries: tuple[Entry, ...], folder: Path) -> Report:
    """The report of what is done so far. Raises UserError where nothing is."""
    experiment = file.experiment
    runs, curves = runs_table(entries, experiment), curves_table(entries)
    command = f"lm sweep run {file.path}"
    if isinstance(experiment, Ablation):
        from lm.analysis.ablation import ablation_report

        return ablation_report(
            title=file.name.replace("_", " "),
            question=file.question,
            baseline=experiment.baseline,
            runs=with_speed(runs, experiment, folder / "training_speed.json"),
            curves=curves,
            decode=decode_table(experiment, folder / "decode.jsonl"),
            notes=match_notes(experiment),
            command=command,
        )
    from lm.analysis.ablation import sweep_report

    axes = list(experiment.axes) if isinstance(experiment, Sweep) else []
    return sweep_report(
        title=file.name, question=file.question, runs=runs, curves=curves, axes=axes, command=command
    )


def match_notes(experiment: Ablation) -> list[str]:
    """How the arms were made equal, and what inequality is left."""
    if experiment.match is None:
        return ["The arms are not matched in size."]
    from lm.sweep.match import quantity

    arms = experiment.arms_resolved()
    goal = quantity(arms[experiment.baseline][0], experiment.match)
    left = [
        f"{name} {experiment.adjusted.rsplit('.', 1)[-1]}={point.get(experiment.adjusted, 'as is')} "
        f"({100 * (quantity(run, experiment.match) / goal - 1):+.2f}%)"
        for name, (run, point) in arms.items()
    ]
    return [f"Matched by {experiment.match}: {experiment.adjusted} in steps of {experiment.multiple}. " + "; ".join(left) + "."]


def with_speed(runs: pd.DataFrame, experiment: Ablation, path: Path) -> pd.DataFrame:
    """The runs with each arm's training speed as timed side by side, once on this device, and kept in `path`.

    The speeds that runs wrote themselves were taken at different times, whatever else the machine did.
    """
    arms = {name: run for name, (run, _) in experiment.arms_resolved().items()}
    asked = {name: repr((run.model, run.train, run.data)) for name, run in arms.items()}
    kept = json.loads(path.read_text()) if path.exists() else {}
    if kept.get("asked") != asked:
        kept = {"asked": asked, "speeds": training_speeds(arms), "device": jax.devices()[0].device_kind}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(kept))
    return runs.assign(tokens_per_second=[kept["speeds"][arm]["tokens_per_second"] for arm in runs["arm"]])


def decode_table(experiment: Ablation, path: Path) -> pd.DataFrame | None:
    """Decoding speed of each arm at each context, timed once on this device and kept in `path`."""
    import pandas as pd

    if not experiment.decode_contexts:
        return None
    kept = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    found = {(row["model"], row["context"], row["batch"]): row for row in kept}
    models = {name: run.model for name, (run, _) in experiment.arms_resolved().items()}
    rows: list[dict[str, Any]] = []
    for context in experiment.decode_contexts:
        for arm, model in models.items():  # arms take turns, so that a slow minute hits all of them
            key = (repr(model), context, DECODE_BATCH)
            if key not in found:
                found[key] = {"model": key[0], **decode_speed(model, context, DECODE_BATCH)}
            rows.append({"arm": arm, **found[key]})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in found.values()))
    return pd.DataFrame(rows).drop(columns="model")
