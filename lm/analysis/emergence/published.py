"""Published scores of many models, and each task's curve over their compute or size.

The tables are those of Ruan et al. 2024 ("Observational Scaling Laws", arXiv 2405.10938), a row a model, and the files
of BIG-bench (Srivastava et al. 2022).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from lm.analysis.scaling.importers import guess_columns, in_words, read_bigbench
from lm.analysis.scaling.importers.columns import checked, renamed
from lm.analysis.scaling.importers.files import Paths, cells
from lm.analysis.tables import TableError, numbers
from lm.analysis.text import either
from lm.errors import unknown

X = Literal["flops", "params", "tokens"]
WORDS: dict[X, str] = {"flops": "training FLOPs", "params": "parameters", "tokens": "training tokens"}

COLUMNS = ("model", "family", "params", "tokens", "flops", "task", "shots", "metric", "value", "chance")
FAMILY = ("family", "modelfamily", "series", "modelseries")  # headings without case and punctuation
SHARES = ("acc", "acc_norm", "accuracy", "exact_match", "em", "exact_str_match", "multiple_choice_grade", "score")
GRADED = ("bleu", "chrf", "rouge1", "rouge2", "rougel", "f1")  # these give credit for a part of an answer
SCALE = {"bleu": 100.0, "chrf": 100.0}
HEADING = re.compile(
    rf"(?P<task>.+?)(?:[_ /](?P<shots>\d+))?[_ /](?P<metric>{'|'.join(sorted((*SHARES, *GRADED), key=len)[::-1])})",
    re.IGNORECASE,
)
# A guess's share of right answers, where a task's choices are as many in every question. Others are 0, as of free text.
CHANCE = {
    "parsinlu_qa": 0.25, "mmlu": 0.25, "hellaswag": 0.25, "winogrande": 0.5, "piqa": 0.5, "boolq": 0.5,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One metric of one task over models. x: log10 of their FLOPs, parameters or tokens; value: from 0 to 1."""

    name: str
    task: str
    metric: str
    shots: float
    over: X
    chance: float
    model: np.ndarray = field(repr=False)
    family: np.ndarray = field(repr=False)
    x: np.ndarray = field(repr=False)
    value: np.ndarray = field(repr=False)

    def where(self, keep: np.ndarray) -> Curve:
        """The same of the models where `keep` is true."""
        return replace(self, **{name: getattr(self, name)[keep] for name in ("model", "family", "x", "value")})


@dataclass(frozen=True)
class Scores:
    """A row for each score of each model, with the columns COLUMNS. notes: what was done to the table so far."""

    frame: pd.DataFrame
    source: str = ""
    notes: tuple[str, ...] = ()

    def curves(self, over: X = "flops", tasks: Sequence[str] | None = None) -> list[Curve]:
        """The scores of each task, metric and number of shots over the models that have one and an x.

        A curve is called by its task, and by metric and shots where the task has several. tasks: curves, or tasks with
        all their curves. Raises TableError for a name that isn't there and where no model has such an x.
        """
        names, x = self.names(), numbers(self.frame, over)
        if not (x > 0).any():
            others = [name for name in WORDS if (numbers(self.frame, name) > 0).any()]
            instead = f"they have {' and '.join(others)}: take --x {others[0]}" if others else "nor any other size"
            raise TableError(f"no model in {self.source} has {WORDS[over]}; {instead}")
        of_task = self.frame["task"].astype(str)
        wanted = list(dict.fromkeys(names)) if tasks is None else []
        for task in tasks or ():
            found = [name for name, its in zip(names, of_task, strict=True) if task in (name, its)]
            if not found:
                raise TableError(unknown(task, dict.fromkeys([*of_task, *names]), f"{self.source} has no task"))
            wanted += dict.fromkeys(found)
        value = numbers(self.frame, "value")
        there = np.isfinite(value) & (x > 0)
        return [self._curve(name, over, there & (np.array(names) == name)) for name in dict.fromkeys(wanted)]

    def names(self) -> list[str]:
        """The curve that each row belongs to."""
        labels = [self.frame[column].astype(str).tolist() for column in ("task", "metric")]
        rows = list(zip(*labels, numbers(self.frame, "shots").tolist(), strict=True))
        kinds = {(task, metric, f"{shots:g}") for task, metric, shots in rows}
        metrics = Counter(task for task, _ in {(task, metric) for task, metric, _ in kinds})
        counts = Counter((task, metric) for task, metric, _ in kinds)

        def name(task: str, metric: str, shots: float) -> str:
            said = f"{task} {metric}" if metrics[task] > 1 else task
            return f"{said} {shots:g}-shot" if counts[task, metric] > 1 and math.isfinite(shots) else said

        return [name(*row) for row in rows]

    def _curve(self, name: str, over: X, rows: np.ndarray) -> Curve:
        mine = self.frame.loc[rows]
        if mine.empty:
            raise TableError(f"no model with {over} has a score of '{name}'; leave it out with --tasks")
        task, metric = (str(mine[column].tolist()[0]) for column in ("task", "metric"))
        return Curve(
            name=name,
            task=task,
            metric=metric,
            shots=float(numbers(mine, "shots")[0]),
            over=over,
            chance=float(numbers(mine, "chance")[0]),
            model=mine["model"].to_numpy(str),
            family=mine["family"].to_numpy(str),
            x=np.log10(numbers(mine, over)),
            value=numbers(mine, "value"),
        )

    def left_out(self, over: X = "flops") -> list[str]:
        """Sentences about the models that no curve over this x has."""
        models = self.frame.drop_duplicates("model")
        none = [str(name) for name in models["model"][~(numbers(models, over) > 0)]]
        missing = int(np.isnan(numbers(self.frame, "value")).sum())
        said = []
        if none:
            said += [f"{len(none)} of {len(models)} models left out, they have no {WORDS[over]}: {', '.join(none)}."]
        if missing:
            said += [f"{missing} of {len(self.frame)} scores are missing."]
        return said


def read_scores(path: str | Path, *, chance: Mapping[str, float] | None = None, **columns: str) -> Scores:
    """Scores from a CSV file with a row for each model and a column for each metric of each task.

        read_scores("published.csv", chance={"parsinlu_qa": 0.25}, family="Lab")

    columns: our names (model, family, params, tokens, flops) to the file's headings; what isn't given is found by its
    usual heading. A unit that ends a heading, as in "FLOPs (1E21)", is multiplied in; FLOPs that the file lacks are
    6 params tokens. A score's heading is its task and metric, with the number of shots between them if it is said:
    "ipa_transliterate_2_bleu". A column of shares from 0 to 1 without a metric in its heading is a task, too. Scores
    are brought to 0..1: BLEU is a percentage, and so are the others of a column that has a value above 1.
    chance: a guess's score by task, beside and before CHANCE; 0 for tasks of neither, and for graded metrics like BLEU.
    Raises TableError where there is no family or no score, and for scores that can't be such.
    """
    frame = cells(path)
    names = _columns(frame, path, columns)
    frame, notes = renamed(frame, names, path)
    frame = checked(frame, path)
    found = [one for heading in frame.columns if heading not in names and (one := _score(frame, heading, path))]
    if not found:
        raise TableError(
            f"{path} has no column of scores: numbers from 0 to 1, or headings such as 'addition_acc', "
            f"'word_unscrambling_2_exact_match'; it has: {', '.join(map(str, frame.columns))}"
        )
    notes = [in_words(names), f"Scores are {', '.join(repr(one.heading) for one in found)}.", *map(_sentence, notes)]
    if "flops" not in frame.columns and {"params", "tokens"} <= set(frame.columns):
        frame = frame.assign(flops=6 * numbers(frame, "params") * numbers(frame, "tokens"))
        notes.append("FLOPs are 6 params tokens.")
    percent = [one.heading for one in found if one.scale > 1]
    notes += [f"Percentages, divided by 100: {', '.join(percent)}."] if percent else []
    about = frame.reindex(columns=["model", "family", "params", "tokens", "flops"])
    long = [
        about.assign(task=one.task, shots=one.shots, metric=one.metric, value=numbers(frame, one.heading) / one.scale)
        for one in found
    ]
    return _scores(pd.concat(long), chance, str(path), notes)


def read_bigbench_scores(paths: Paths, *, chance: Mapping[str, float] | None = None) -> Scores:
    """Scores from BIG-bench's files (see `read_bigbench`): each task's preferred metric, and BLEU where it has one.

    They have parameters and no FLOPs. A subtask is a task. Scores and what the files state as chance are divided by
    the score that they state for perfect answers.
    """
    read = read_bigbench(paths)
    frame = read.frame
    high, low = (numbers(frame, name) for name in ("high", "low"))
    bleu = (frame["metric"] == "bleu").to_numpy()
    keep = (frame["preferred"].to_numpy(bool) | bleu) & (frame["params"] > 0).to_numpy()
    if not keep.any():
        raise TableError(f"{read.source} has no preferred score of a model with parameters")
    scale = np.where(bleu, SCALE["bleu"], np.where(high > low, high, 1.0))
    made = frame.assign(
        task=frame["subtask"].where(frame["subtask"] != "", frame["task"]),
        family=frame["family"].where(frame["family"] != "", frame["model"]),  # alone in its family
        value=numbers(frame, "value") / scale,
        chance=low / scale,
        tokens=np.nan,
        flops=np.nan,
    ).loc[keep]
    left = int((~keep).sum())
    notes = [f"{left} of {len(frame)} scores left out: other metrics, or no parameters."] if left else []
    return _scores(made, chance, read.source, [*map(_sentence, read.notes), *notes])


class Score(NamedTuple):
    """A column of scores: its heading, what that says, and the score of perfect answers."""

    heading: str
    task: str
    shots: float
    metric: str
    scale: float


def _columns(frame: pd.DataFrame, path: str | Path, given: Mapping[str, str]) -> dict[str, str]:
    """Our names to the file's headings. Raises TableError where the family isn't there."""
    found = {ours: str(theirs) for ours, theirs in guess_columns(path, need=(), **given).items()}
    if "family" not in found:
        plain = {str(c): re.sub(r"[^a-z0-9]", "", str(c).casefold()) for c in frame.columns}
        families = [theirs for theirs, name in plain.items() if name in FAMILY]
        if len(families) != 1:
            what = f"several columns may be it: {', '.join(families)}" if families else "no heading is 'family'"
            headings = ", ".join(map(str, frame.columns))
            raise TableError(f"can't tell which column of {path} is the family of a model: {what}; "
                             f"say it, e.g. --column family=Lab; it has: {headings}")  # fmt: skip
        found["family"] = families[0]
    if "model" not in found:
        raise TableError(f"can't tell which column of {path} names the model; say it, e.g. --column model=Name")
    return found


def _score(frame: pd.DataFrame, heading: str, path: str | Path) -> Score | None:
    """What a column's scores are; None for one that holds none."""
    values, name = numbers(frame, heading), HEADING.fullmatch(heading)
    text = np.isnan(values) & frame[heading].notna().to_numpy()
    seen = values[np.isfinite(values)]
    if name is None:
        share = len(seen) and not text.any() and seen.min() >= 0 and seen.max() <= 1 and set(seen) - {0.0, 1.0}
        return Score(heading, heading, math.nan, "score", 1.0) if share else None
    bad = np.flatnonzero(text | (values < 0) | (values > 100))
    if len(bad):
        shown = frame[heading].tolist()[bad[0]]
        raise TableError(
            f"{path} line {frame.index[bad[0]]} has {shown!r} as {heading}; a score is a number from 0 to 1, or to 100"
        )
    metric = name["metric"].lower()
    scale = SCALE.get(metric, 100.0 if len(seen) and seen.max() > 1 else 1.0)
    return Score(heading, name["task"], float(name["shots"] or "nan"), metric, scale)


def _scores(frame: pd.DataFrame, chance: Mapping[str, float] | None, source: str, notes: Sequence[str]) -> Scores:
    """The table with chance levels, checked."""
    known = {str(task).casefold() for task in frame["task"]}
    for task, floor in (chance or {}).items():
        if task.casefold() not in known:
            raise TableError(unknown(task, frame["task"].unique(), f"{source} has no task"))
        if not 0 <= floor < 1:
            raise TableError(f"the chance of {task} is a share of right answers, such as 0.25; got {floor:g}")
    for column in ("model", "family"):
        gone = np.flatnonzero(frame[column].isna() | (frame[column] == ""))
        if len(gone):
            raise TableError(
                f"{source}: a row has no {column} ({either(len(gone), 'score')}, line {frame.index[gone[0]]} first); "
                "write the model's own name where it has no family"
            )
    twice = frame.duplicated(["model", "params", "tokens", "flops", "task", "shots", "metric"])
    if twice.any():
        raise TableError(f"{source} has two rows of {frame.loc[twice, 'model'].iloc[0]} at one size; keep one")
    folded = frame["task"].astype(str).str.casefold()
    said = folded.map({task.casefold(): floor for task, floor in (chance or {}).items()})
    stated = frame["chance"] if "chance" in frame.columns else folded.map(CHANCE)
    floors = said.fillna(stated).where(~frame["metric"].isin(GRADED)).fillna(0.0)
    made = frame.assign(chance=floors).loc[:, list(COLUMNS)].reset_index(drop=True)
    return Scores(made, source, tuple(notes))


def _sentence(note: str) -> str:
    return note[:1].upper() + note[1:] + "."
