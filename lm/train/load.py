"""Reading a trained run back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lm import data
from lm.config import lift
from lm.data import Codec, Dataset
from lm.errors import UserError
from lm.nn import param
from lm.objectives import Sums
from lm.sharding import Layout, layout
from lm.train.checkpoint import Checkpoints
from lm.train.folder import RunError, RunFolder
from lm.train.run import Run
from lm.train.step import Program, Values, program

Batch = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Loaded:
    """A run with its weights (the averaged ones where the run keeps an average) and its tokenizer."""

    folder: RunFolder
    run: Run
    params: param.Params
    codec: Codec
    program: Program


def load_run(path: str | Path, where: Layout | None = None, step: int | None = None) -> Loaded:
    """The newest checkpoint of a run's folder, or its snapshot of `step`, placed on `where` (one device by default)."""
    folder = RunFolder(Path(path))
    run = folder.config()
    compiled = program(run.model, lift(run.train)[0], where or layout())
    wanted = compiled.abstract_state()
    if step is not None:
        if not folder.snapshots.is_dir():
            raise RunError(f"{path} has no snapshots; train it with record.snapshots=1 or more, or leave out the step")
        with Checkpoints(folder.snapshots, keep=None) as snapshots:
            params = snapshots.restore({"params": wanted.params}, step)["params"]
    else:
        with Checkpoints(folder.checkpoints, keep=run.record.keep) as checkpoints:
            latest = checkpoints.latest()
            if latest is None:
                raise RunError(f"{path} has no checkpoint yet; train the run first")
            state = checkpoints.restore(wanted._replace(opt={}), latest, partial=True)
        params = state.ema or state.params
    return Loaded(folder, run, params, run.data.codec(folder.tokenizer.read_text()), compiled)


def heldout(sums_of: Callable[[Batch], Sums], dataset: Dataset, rows: int | None = None) -> dict[str, Any]:
    """Loss (nats a token), bits a byte and accuracy over the held-out text; `rows` sequences of it, or all.

    sums_of: what a batch gives, as scalars or for several models at once; the numbers found are of the same shape.
    Raises UserError if nothing is held out.
    """
    nats = tokens = correct = np.float64(0)
    bytes_ = 0
    for batch in dataset.heldout_batches(rows):
        sums = sums_of(batch)
        nats, tokens, correct = nats + _wide(sums.nats), tokens + _wide(sums.tokens), correct + _wide(sums.correct)
        bytes_ += dataset.bytes_of(batch)
    if not np.all(tokens):
        raise UserError("there is no held-out text to evaluate; raise data.heldout")
    bits = nats / bytes_ / math.log(2)
    return {"loss": nats / tokens, "bits_per_byte": bits, "accuracy": correct / tokens, "evaluated": tokens}


def evaluate(
    compiled: Program, params: param.Params, values: Values, dataset: Dataset, rows: int | None = None
) -> dict[str, Any]:
    """`heldout` for one model, as Python's numbers."""
    where = compiled.layout
    found = heldout(lambda batch: compiled.evaluate(params, where.put(where.mine(batch)), values), dataset, rows)
    return {**{name: float(value) for name, value in found.items()}, "evaluated": int(found["evaluated"])}


def _wide(x: jax.Array) -> Any:
    return np.asarray(x, np.float64)


def evaluate_run(loaded: Loaded, rows: int | None = None) -> dict[str, Any]:
    """`evaluate` on the run's own held-out text. Raises RunError if that has changed since the run began."""
    loaded.folder.check(loaded.run, data.fingerprint(loaded.run.data))
    return evaluate(loaded.program, loaded.params, lift(loaded.run.train)[1], loaded.run.dataset(), rows)
