"""The results store: what experiments have found so far, read from the folders their runs wrote.

Nothing is kept besides those files, so nothing has to be imported and nothing can be out of date. A source is a folder
of results, the folder of one experiment in it, its manifest.jsonl, or an experiment file, whose results are then looked
for in ./results. A run that two experiments list is there once for each; one that none lists (`lm train` makes such) in
none.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm.config import from_dict
from lm.errors import UserError
from lm.files import reason, write_atomically
from lm.sweep import sql as engine
from lm.sweep.experiment import short
from lm.train.folder import RunFolder
from lm.train.rows import encode

if TYPE_CHECKING:
    import pandas as pd

RESULTS = "results"
MANIFEST = "manifest.jsonl"
NUMBERS = ("heldout_loss", "heldout_bpb", "tokens_per_second", "seconds")  # missing, not absent, before a run ends
LABELS = ("experiment", "id", "arm", "seed")
KEPT_APART = ("status", "point", "config")  # of a manifest's row: what changes, and what isn't one value


class StoreError(UserError):
    """Results that aren't there or can't be read."""


@dataclass(frozen=True)
class Listed:
    """A run as the manifest of an experiment lists it, and its folder."""

    experiment: str
    row: dict[str, Any]
    folder: RunFolder


def results(source: str | Path = RESULTS) -> pd.DataFrame:
    """One row a run, finished or not: experiment, id, arm, seed, status, each path that the experiment varied, the
    manifest's other columns (all but config), every number of the result, and the error of a failed run.

    A varied component is named by its fields that aren't at their defaults. What isn't known is missing.
    Raises StoreError where there are no results.
    """
    return runs_table(listed(source))


def curves(source: str | Path = RESULTS, split: str | None = None) -> pd.DataFrame:
    """Every row that every run has written so far, run by run: experiment, id, arm, seed, then the row's own columns,
    and the training FLOPs spent by then. split: only those of one split, e.g. heldout.

    A number that wasn't finite is NaN or infinite here, one that isn't in the row is missing (NaN, too).
    """
    return rows_table(listed(source), split)


def query(sql: str, source: str | Path = RESULTS) -> pd.DataFrame:
    """What one SELECT of DuckDB's SQL gives: over `runs` (as `results`), `rows` (every row of every run, with the run's
    id) and `manifest` (its rows as they are, point and config as JSON).

        query("select arm, avg(heldout_loss) from runs group by arm")

    Raises UserError, with all views and columns, where the SQL is wrong, and for all that isn't one SELECT.
    """
    found = listed(source)
    folders = list({run.folder.path: run.folder for run in found}.values())
    return engine.select(sql, {"runs": lambda: runs_table(found), "manifest": lambda: _manifest_table(found)}, folders)


def export(source: str | Path, path: str | Path) -> None:
    """Writes the table of `results` to a file: .csv, .parquet or .jsonl."""
    write(results(source), path)


def write(frame: pd.DataFrame, path: str | Path) -> None:
    """Writes a table as .csv, .parquet or .jsonl, by the path's suffix; whole, or not at all.

    Numbers keep every digit; what is missing is empty in CSV and null in the others. JSON lines are as runs write them:
    an infinite number is null, too, and named in "nonfinite".
    """
    path = Path(path)
    if path.suffix == ".csv":
        write_atomically(path, frame.to_csv(index=False))
    elif path.suffix == ".jsonl":
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        write_atomically(path, "".join(encode({str(n): _value_of(v) for n, v in row.items()}) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        write_atomically(path, engine.parquet(frame))
    else:
        raise StoreError(f"can't tell what to write to {path}; give it the suffix .csv, .parquet or .jsonl")


# ---- what is listed ---------------------------------------------------------------------------------------------


def listed(source: str | Path = RESULTS) -> list[Listed]:
    """Every run of the manifests of a source, experiment by experiment. Raises StoreError if there are none."""
    found = []
    for manifest in _manifests(Path(source)):
        folder = manifest.parent
        for row in _read_manifest(manifest):
            found.append(Listed(folder.name, row, RunFolder(folder.parent / "runs" / row["id"])))
    return found


def _manifests(source: Path) -> list[Path]:
    """The manifests that a source means."""
    if source.suffix == ".py":
        return [_of_file(source)]
    source = source.absolute()
    if source.suffix == ".jsonl" and source.is_file():
        return [source]
    if not source.is_dir():
        raise StoreError(f"there are no results in {source}; lm sweep run FILE makes some in ./{RESULTS}")
    if (source / MANIFEST).exists():
        return [source / MANIFEST]
    found = sorted(source.glob(f"*/{MANIFEST}"))
    if not found:
        above = next((p for p in source.parents if next(p.glob(f"*/{MANIFEST}"), None)), None)
        hint = f"did you mean {above}?" if above else "lm sweep run FILE writes one"
        raise StoreError(f"no experiment has its manifest in {source}; {hint}")
    return found


def _of_file(file: Path) -> Path:
    """The manifest that an experiment file last wrote to ./results, without a preset and without overrides."""
    folder = Path(RESULTS).absolute()
    manifest = folder / file.stem / MANIFEST
    if manifest.exists():
        return manifest
    if not file.is_file():
        raise StoreError(f"there is no experiment file {file}")
    others = sorted(p.parent.name for p in folder.glob(f"{file.stem}-*/{MANIFEST}"))
    hint = (
        f"there are {', '.join(f'{RESULTS}/{name}' for name in others)}"
        if others
        else f"lm sweep run {file} makes some"
    )
    raise StoreError(f"{file} has no results in {folder / file.stem}; {hint}")


def _read_manifest(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise StoreError(f"can't read {path}: {reason(error)}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise StoreError(f"{path} line {number} isn't JSON ({error}); lm sweep plan FILE writes it anew") from None
        missing = [name for name in ("id", "arm", "seed", "tokens", "flops") if name not in row]
        if missing:
            raise StoreError(f"{path} line {number} is no run of a manifest: it has no {missing[0]}")
        rows.append(row)
    return rows


# ---- tables -----------------------------------------------------------------------------------------------------


def runs_table(runs: Sequence[Listed]) -> pd.DataFrame:
    """The table of `results` for these runs. Two small files are looked at for each run."""
    import pandas as pd

    varied: dict[str, dict[str, None]] = {}
    for run in runs:
        varied.setdefault(run.experiment, {}).update(dict.fromkeys(run.row.get("point", {})))
    rows, listed_names, found_names = [], {}, {}
    for run in runs:
        points = {path: _value(run.row, path) for path in varied[run.experiment]}
        rest = {name: value for name, value in run.row.items() if name not in KEPT_APART}
        outcome = _outcome(run.folder)
        rows.append({"experiment": run.experiment, **rest, **outcome, **points})
        listed_names |= rest
        found_names |= outcome
    paths = [path for paths in varied.values() for path in paths]
    names = [*LABELS, "status", *paths, *listed_names, *found_names, *NUMBERS]
    names = [*(name for name in dict.fromkeys(names) if name != "error"), "error"]
    return pd.DataFrame(rows, columns=pd.Index(names))


def rows_table(runs: Sequence[Listed], split: str | None = None) -> pd.DataFrame:
    """The table of `curves` for these runs."""
    import pandas as pd

    labels = pd.DataFrame(
        [{"experiment": run.experiment, **run.row, "flops": run.row["flops"] / run.row["tokens"]} for run in runs],
        columns=pd.Index([*LABELS, "flops"]),
    )
    folders = {run.folder.path: run.folder for run in runs}
    where = "" if split is None else f" WHERE split = {engine.literal(split)}"
    rows = engine.select(f"SELECT * FROM rows{where}", {}, list(folders.values()), exact=True)
    found = labels.merge(rows, on="id", suffixes=("", "_of_row"))  # keeps the order of the runs and of each one's rows
    found["flops"] *= found["tokens"]
    return found


def _manifest_table(runs: Iterable[Listed]) -> pd.DataFrame:
    import pandas as pd

    rows = [{"experiment": run.experiment, **run.row} for run in runs]
    for row in rows:
        row.pop("status", None)  # what it was when the manifest was written
        row |= {name: json.dumps(value) for name, value in row.items() if isinstance(value, dict | list)}
    return pd.DataFrame(rows, columns=pd.Index(list(dict.fromkeys(["experiment", *(n for row in rows for n in row)]))))


def _outcome(folder: RunFolder) -> dict[str, Any]:
    """A run's status, and what it found or why it failed."""
    status = folder.status()
    try:
        if status == "done":
            return {"status": status, **folder.result()}
        if status == "failed":
            return {"status": status, "error": folder.failure()}
    except FileNotFoundError:  # a failed run was started again since the line above
        return _outcome(folder)
    except (ValueError, KeyError) as error:
        name = "result.json" if status == "done" else "failure.json"
        raise StoreError(f"{folder.path / name} is damaged ({error}); remove it and run the sweep again") from None
    return {"status": status}


def _value(row: dict[str, Any], path: str) -> str | int | float | None:
    """What a run has at a path that its experiment varies: in its config, or in its point where it lists no config."""
    value = row.get("config")
    try:
        for key in path.split("."):
            value = value[int(key)] if isinstance(value, list) else value[key]  # type: ignore[index]
    except (KeyError, IndexError, TypeError, ValueError):  # none listed, or a table's key with a dot in it
        if path not in row.get("point", {}):
            return None
        value = row["point"][path]
    return value if isinstance(value, str | int | float) else _label(json.dumps(value))


@functools.cache
def _label(text: str) -> str | int | float:
    """A component by its name and the fields that aren't at their defaults; by its JSON where no class is known."""
    try:
        value = from_dict(json.loads(text))
    except Exception:  # a class of an experiment that is gone or changed must not hide the numbers of its runs
        return text
    return value if isinstance(value, int | float | str) else short(value)


def _value_of(cell: Any) -> Any:
    """A cell as JSON can hold it."""
    return cell if cell is None or isinstance(cell, str | int | float | list | dict) else engine.plain(cell)
