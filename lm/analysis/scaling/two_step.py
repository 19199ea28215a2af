"""Scores on a task from size and tokens, in two steps: a law of the loss, and a law of the score over that loss.

    both = two_step(runs, of="bits_per_byte", target="accuracy")
    both.predict(params=7e9, tokens=2e12), both.interval(params=7e9, tokens=2e12)

Each step is smooth where the score itself looks like a jump (Bhagia et al. 2024; Gadre et al. 2024). An error of the
first step becomes one of the second: intervals come from refitting both to resampled runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lm.analysis.scaling.bootstrap import Bootstrap
from lm.analysis.scaling.fitting import Fit, fit
from lm.analysis.scaling.law import Law
from lm.analysis.scaling.laws.downstream import Accuracy
from lm.analysis.scaling.runs import RunTable
from lm.analysis.tables import TableError


@dataclass(frozen=True)
class TwoStep:
    """A law of the loss and a law of the score over it."""

    loss: Fit
    score: Fit

    def __post_init__(self) -> None:
        if len(self.score.law.columns) != 1:
            raise TableError(f"the second step is a law of one column, the loss; {self.score.law.name} has others")

    def predict(self, **columns: Any) -> Any:
        """The score of a run, or of arrays of them: `predict(params=1e9, tokens=2e10)`."""
        return self.score.predict(**{self.score.law.columns[0]: self.loss.predict(**columns)})

    def draws(self, n: int = 1000, seed: int = 0, **columns: float) -> np.ndarray:
        """[n] scores of one run, each by refits of both laws to resampled runs. Where both steps saw the same runs,
        one draw is one resample of them, so that errors the steps share are kept (unless a resample had no fit)."""
        first, second = self.loss.bootstrap(n, seed), self.score.bootstrap(n, seed if self._same_runs else seed + 1)
        count = min(len(first.thetas), len(second.thetas))
        return np.array([self._of(first, second, i).predict(**columns) for i in range(count)])

    def interval(self, level: float = 0.95, n: int = 1000, seed: int = 0, **columns: float) -> tuple[float, float]:
        """The percentile interval of one run's score: of the law's mean; a run of its own scatters about it."""
        if not 0 < level < 1:
            raise TableError(f"level={level} isn't a share between 0 and 1, such as 0.95")
        draws = self.draws(n, seed, **columns)
        low, high = np.quantile(draws[np.isfinite(draws)], [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.loss.notes, *self.score.notes)

    @property
    def _same_runs(self) -> bool:
        a, b = self.loss.runs.clusters(), self.score.runs.clusters()
        if len(a) != len(b) or not np.array_equal(a, b):
            return False
        return all(
            np.array_equal(self.loss.runs.column(name), self.score.runs.column(name))
            for name in self.loss.law.columns
            if name in self.score.runs.frame.columns
        )

    def _of(self, first: Bootstrap, second: Bootstrap, i: int) -> TwoStep:
        return TwoStep(self.loss.moved(first.thetas[i]), self.score.moved(second.thetas[i]))


def two_step(
    runs: RunTable,
    law: str | Law = "chinchilla",
    second: Law | None = None,
    *,
    of: str = "bits_per_byte",
    target: str = "accuracy",
    **options: Any,
) -> TwoStep:
    """Fits both steps to the same runs.

    of: the column between the steps, in whatever unit: bits a byte of the task's right answers (see
    `lm.analysis.scaling.laws.downstream.bits_per_byte`), or "loss". target: the score's column. law: of the first step,
    second: of the second, by default a sigmoid. options: of `fit`, for both steps.
    Raises TableError for columns that aren't there.
    """
    between = replace(runs, frame=runs.frame.assign(loss=runs.column(of)))
    return TwoStep(fit(between, law, **options), fit(runs, second or Accuracy(x=of, target=target), **options))
