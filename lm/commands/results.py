"""What experiments have found so far, as a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from lm.commands.options import Shared

if TYPE_CHECKING:
    import pandas as pd

MAIN = ("id", "experiment", "arm", "seed", "status", "params", "tokens", "flops", "heldout_loss", "error")


@dataclass(frozen=True, kw_only=True)
class Results(Shared):
    """List the runs of all experiments, or ask for anything about them in SQL.

    lm results "select arm, avg(heldout_loss) from runs group by arm"
    lm results "select id, min(loss) from rows where split = 'heldout' group by id"
    """

    sql: Annotated[Positional[str | None], arg(metavar="SQL")] = None
    """One SELECT over the views runs (a row a run), rows (all rows that runs wrote) and manifest. Default: the runs."""
    results: str = "results"
    """The folder of results, that of one experiment in it, or an experiment file."""
    out: str | None = None
    """Write the table to this file instead, with all columns: .csv, .parquet or .jsonl."""

    def __call__(self) -> int:
        from lm.sweep import store

        frame = store.results(self.results) if self.sql is None else store.query(self.sql, self.results)
        if self.out is not None:
            store.write(frame, self.out)
            print(f"{len(frame)} rows: {self.out}")
        elif self.sql is None:
            counts = Counter(frame["status"])
            print(_text(frame.loc[:, [name for name in MAIN if name != "error" or counts["failed"]]]))
            print(f"\n{len(frame)} runs: " + ", ".join(f"{n} {status}" for status, n in counts.items()))
        else:
            print(_text(frame))
        return 0


def _text(frame: pd.DataFrame) -> str:
    """The table as text, whatever its columns are called in SQL."""
    from lm.analysis.text import Column, plain_columns, plain_table

    headings = [str(name) for name in frame.columns]
    frame = frame.set_axis([f"c{i}" for i in range(len(headings))], axis="columns")
    frame = frame.assign(**{c: frame[c].map(_cell) for c in frame.columns if frame[c].dtype == object})
    columns = [Column(h, column.templates) for h, column in zip(headings, plain_columns(frame), strict=True)]
    return plain_table(frame, columns)


def _cell(value: Any) -> Any:
    """Lists as lists: a cell that is an array is no single value."""
    return str(value.tolist()) if hasattr(value, "tolist") else value
