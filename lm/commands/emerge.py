"""Published scores of many models as the familiar grid: one panel a task, over compute."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from tyro.conf import Positional, arg

from lm.commands.options import Shared
from lm.errors import UserError

if TYPE_CHECKING:
    from lm.analysis.emergence.published import Scores

T = TypeVar("T")
QUESTION = "Where does each task's score rise, and how far do models of equal size differ?"


@dataclass(frozen=True, kw_only=True)
class Emerge(Shared):
    """Published scores of many models: where tasks emerge, with intervals. Writes the report: page, figures, tables.

    lm emerge plot experiments/emergence/published.csv
    lm emerge plot scores.csv --x params --tasks arithmetic_3da --examples arithmetic_3da=2000
    """

    do: Annotated[Positional[Literal["plot"]], arg(metavar="plot")]
    """Make the report."""
    source: Annotated[Positional[str], arg(metavar="CSV|BIG-BENCH")]
    """A CSV file with a row a model and a column for each task, or a folder (or file) of BIG-bench's scores_*.json."""
    x: Literal["flops", "params", "tokens"] = "flops"
    """What the scores are drawn over."""
    tasks: tuple[str, ...] = ()
    """Tasks to show. Default: all."""
    chance: tuple[str, ...] = ()
    """What a guess scores, e.g. --chance parsinlu_qa=0.25. Default: known tasks of choice, else 0."""
    examples: tuple[str, ...] = ()
    """How many questions tasks have, e.g. --examples arithmetic_3da=2000: shows what can be told from chance."""
    column: tuple[str, ...] = ()
    """The CSV file's columns where their headings aren't usual, e.g. --column family=Lab flops=C."""
    resamples: int = 1000
    """Of families and of models, for the intervals."""
    seed: int = 0
    """Of the resamples."""
    report: str | None = None
    """The page to write; what belongs to it goes to a folder of the same name. Default: emergence/NAME.html."""

    def __call__(self) -> int:
        from lm.analysis.emergence.scores_report import scores_report

        scores = self._scores()
        stem = Path(self.source).resolve().stem
        made = scores_report(
            scores,
            title=f"Published scores: {stem}",
            question=QUESTION,
            command=shlex.join(["lm", *sys.argv[1:]]),
            x=self.x,
            tasks=self.tasks or None,
            examples=_pairs("examples", self.examples, int, "arithmetic_3da=2000"),
            resamples=self.resamples,
            seed=self.seed,
        )
        page = Path(self.report) if self.report else Path("emergence") / f"{stem}.html"
        folder = page.with_suffix("")
        made.write(folder, page)
        print(f"{made.text()}\nreport: {page}, figures and tables: {folder}")
        return 0

    def _scores(self) -> Scores:
        from lm.analysis.emergence.published import read_bigbench_scores, read_scores

        path = Path(self.source)
        chance = _pairs("chance", self.chance, float, "parsinlu_qa=0.25")
        columns = _pairs("column", self.column, str, "family=Lab")
        if path.is_dir() or path.suffix == ".json":
            if columns:
                raise UserError(f"--column is for CSV files; {path} is one of BIG-bench")
            return read_bigbench_scores(path, chance=chance)
        return read_scores(path, chance=chance, **columns)


def _pairs(option: str, texts: tuple[str, ...], kind: Callable[[str], T], example: str) -> dict[str, T]:
    """The values of an option of NAME=VALUE."""
    found = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            found[name] = kind(value)
        except ValueError:
            value = ""
        if not (name and value):
            raise UserError(f"--{option} {text}: say NAME=VALUE, e.g. {example}")
    return found
