"""Models that count, beside the arms of an ablation: fitted when its report is made, and kept."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lm import data
from lm.config import content_hash
from lm.early import NGram, of_batches
from lm.sweep.measured import keep, kept

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from lm.sweep.experiment import Ablation
    from lm.sweep.manifest import Entry
    from lm.train.run import Run


def ngram_table(experiment: Ablation, entries: tuple[Entry, ...], path: Path) -> pd.DataFrame | None:
    """A row for each of the ablation's n-gram models and seed: order, seed, and what `counted` finds. None if there are
    no such models or no finished runs."""
    import pandas as pd

    found, rows = kept(path), []
    for seed, entry in reading_most(entries).items():
        run = entry.planned.run
        for ngram in experiment.ngrams:
            key = content_hash([ngram, run.data], entry.data, str(run.train.steps), str(run.record.heldout_rows))
            if key not in found:
                found[key] = counted(ngram, run)
                keep(path, key, **found[key])
            numbers = {name: value for name, value in found[key].items() if name != "key"}
            rows.append({"order": ngram.order, "seed": seed, **numbers})
    return pd.DataFrame(rows) if rows else None


def reading_most(entries: tuple[Entry, ...]) -> dict[int, Entry]:
    """Of each seed the finished run that read most text: what all others read, and more."""
    done = sorted((e for e in entries if e.status() == "done"), key=lambda e: e.planned.run.train.steps)
    return {entry.planned.seed: entry for entry in done}


def counted(ngram: NGram, run: Run) -> dict[str, Any]:
    """The model of the batches that the run read, asked for the tokens of which the run's held-out loss is the mean.

    tokens: that it was fitted on; ngrams: how many of any order it keeps; seconds: of one core, for the fit.
    """
    dataset = data.load(run.data)
    text = of_batches(dataset.batch(n) for n in range(run.train.steps))
    began = time.process_time()
    model = ngram.fit(text, dataset.vocab)
    seconds = time.process_time() - began
    heldout = of_batches(dataset.heldout_batches(run.record.heldout_rows))
    return {
        "tokens": int((~text.starts).sum()),
        "ngrams": sum(len(level.keys) for level in model.levels),
        "seconds": seconds,
        "bits_per_byte": model.bits_per_byte(heldout, dataset.tokenizer.token_bytes),
    }
