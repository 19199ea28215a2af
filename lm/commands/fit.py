"""Fitting scaling laws to tables of runs."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from lm.commands.options import Shared
from lm.errors import UserError

if TYPE_CHECKING:
    from lm.analysis.scaling import RunTable


@dataclass(frozen=True, kw_only=True)
class Fit(Shared):
    """Fit a scaling law to runs, with intervals, and write the report: page, figures, tables, full-precision JSON.

    lm fit runs.csv --params "Model Size" --flops "Training FLOP" --loss loss
    lm fit experiments/scaling_text.py --law chinchilla
    """

    source: Annotated[Positional[str], arg(metavar="CSV|EXPERIMENT")]
    """A CSV file with headings, an experiment file whose runs are done, or a folder of results."""
    law: str = "chinchilla"
    """Which law: chinchilla, kaplan, data_constrained, overtraining, moe, bnsl, ..."""
    objective: Literal["huber", "lad", "squared"] | None = None
    """What is minimised. Default: what the law's authors took."""
    delta: float = 1e-3
    """Of the Huber function."""
    starts: int = 300
    """Points that the search begins from."""
    resamples: int = 1000
    """Of the bootstrap."""
    seed: int = 0
    """Of starts and resamples."""
    params: str | None = None
    """The file's column of parameters. Columns that aren't given are found by their usual headings."""
    tokens: str | None = None
    """Its column of training tokens."""
    flops: str | None = None
    """Its column of training FLOPs."""
    loss: str | None = None
    """Its column of losses."""
    column: tuple[str, ...] = ()
    """Its other columns that the law reads, e.g. --column unique_tokens=uniq experts=E."""
    formula: Literal["6ND", "+head", "+attention", "exact", "unknown"] = "6ND"
    """How its FLOPs were counted."""
    drop_highest: int = 0
    """Leave out so many runs of the highest losses."""
    report: str | None = None
    """The page to write; what belongs to it goes to a folder of the same name. Default: fits/NAME.html."""

    def __call__(self) -> int:
        from lm.analysis import scaling
        from lm.files import write_atomically

        runs = self._runs()
        if self.drop_highest:
            runs = runs.without_highest_losses(self.drop_highest)
        fit = scaling.fit(runs, self.law, self.objective, delta=self.delta, starts=self.starts, seed=self.seed)
        found = scaling.findings(runs, fit, self.resamples, self.seed)
        stem = Path(self.source).resolve().stem
        made = scaling.scaling_report(
            found, title=f"{fit.law.name} on {stem}", command=shlex.join(["lm", *sys.argv[1:]])
        )
        page = Path(self.report) if self.report else Path("fits") / f"{stem}.html"
        folder = page.with_suffix("")
        made.write(folder, page)
        write_atomically(folder / "fit.json", fit.as_json())
        print(f"{made.text()}\nreport: {page}, figures and tables: {folder}")
        return 0

    def _runs(self) -> RunTable:
        from lm.analysis import scaling
        from lm.analysis.scaling.importers.guess import HEADINGS, in_words
        from lm.analysis.scaling.laws import law_of

        path = Path(self.source)
        if path.is_dir() or path.suffix == ".py":
            return scaling.read_results(path)
        given = {name: getattr(self, name) for name in ("params", "tokens", "flops", "loss") if getattr(self, name)}
        for text in self.column:
            name, equals, heading = text.partition("=")
            if not (name and equals and heading):
                raise UserError(f"--column {text}: say NAME=HEADING, e.g. experts=E")
            given[name] = heading
        law = law_of(self.law)
        need = [name for name in (*law.columns, law.target) if name in HEADINGS]
        columns = scaling.guess_columns(path, need=need, **given)
        print(in_words(columns), flush=True)
        return scaling.read_csv(path, formula=self.formula, **columns)  # type: ignore[arg-type]
