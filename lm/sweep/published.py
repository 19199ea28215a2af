"""Published scores as an experiment: a question that is answered from a table, without a run of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from lm.config import ConfigError, config
from lm.sweep.experiment import Experiment, Planned
from lm.train.run import Run

if TYPE_CHECKING:
    from lm.analysis import Report


@config
class Published(Experiment):
    """Scores of published models over their size: where each task rises, and how much families differ.

    scores: a CSV file as `lm emerge plot` reads it. over: the x axis. tasks: some of its tasks; None: all. resamples:
    of the bootstrap behind the intervals.
    """

    scores: str
    over: Literal["flops", "params", "tokens"] = "flops"
    tasks: tuple[str, ...] | None = None
    resamples: int = 500

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise ConfigError(f"resamples={self.resamples} must be at least 1")

    def planned(self) -> tuple[Planned, ...]:
        """Nothing: the runs are others'."""
        return ()

    def arms_resolved(self) -> dict[str, tuple[Run, dict[str, Any]]]:
        return {}

    def report(self, *, title: str, question: str, command: str = "", **tables: Any) -> Report:
        from lm.analysis.emergence.published import read_scores
        from lm.analysis.emergence.scores_report import scores_report

        del tables  # of runs: there are none
        found = read_scores(self.scores)
        return scores_report(
            found,
            title=title,
            question=question,
            command=command,
            x=self.over,
            tasks=self.tasks,
            resamples=self.resamples,
        )
