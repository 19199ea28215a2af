"""Which columns of a file are which, by their usual headings: for the command line, where nobody wrote a map."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from lm.analysis.scaling.importers.columns import UNIT
from lm.analysis.scaling.importers.files import cells
from lm.analysis.tables import TableError

Column = str | Sequence[str]

# Headings without case and punctuation. A batch in sequences and a loss on training text aren't ours, so they aren't
# here; of a bare "loss" beside another one can't be known what it is.
HEADINGS: Mapping[str, tuple[str, ...]] = {
    "params": (
        "params", "parameters", "numparams", "nparams", "numparameters", "nparameters", "totalparams", "paramstotal",
        "totalparameters", "paramcount", "parametercount", "modelparams", "modelparameters", "modelsize", "size", "n",
    ),
    "params_non_embedding": (
        "paramsnonembedding", "nonembeddingparams", "nonembeddingparameters", "nonembedding", "paramsnoembed",
        "paramsnoembedding", "nonembparams",
    ),
    "params_active": ("paramsactive", "activeparams", "activeparameters", "numactiveparams"),
    "tokens": (
        "tokens", "numtokens", "ntokens", "traintokens", "trainingtokens", "totaltokens", "tokensseen",
        "consumedtokens", "pretrainingtokens", "pretrainingdatasize", "trainingdatasize", "d",
    ),
    "unique_tokens": ("uniquetokens", "tokensunique", "numuniquetokens"),
    "flops": (
        "flops", "flop", "trainingflops", "trainingflop", "trainflops", "trainflop", "totalflops", "totalflop",
        "pretrainingflops", "compute", "trainingcompute", "traincompute", "c",
    ),
    "loss": (
        "loss", "valloss", "validationloss", "finalloss", "finalvalloss", "finalvalidationloss", "testloss",
        "finaltestloss", "heldoutloss", "evalloss", "finalevalloss", "lossval", "l",
    ),
    "learning_rate": ("learningrate", "lr", "peaklr", "maxlr", "peaklearningrate", "maxlearningrate"),
    "batch": ("batch", "batchtokens", "batchsizetokens", "batchsizeintokens", "tokensperbatch", "tokensperstep"),
    "schedule": ("schedule", "lrschedule", "learningrateschedule"),
    "seed": ("seed", "randomseed"),
    "evaluation": ("evaluation", "evaluationset", "evalset", "evaldataset", "valset"),
    "model": ("model", "modelname", "modelid"),
}  # fmt: skip


def guess_columns(
    path: str | Path, *, need: Sequence[str] = ("params", "tokens", "loss"), **given: Column
) -> dict[str, Column]:
    """Our names to the headings of a CSV file, ready for `read_csv(path, **guess_columns(path))`.

    given: what is known already, which isn't guessed. need: what must be found; FLOPs do for tokens.
    Case and punctuation of headings don't matter, nor does a unit as in "Model Size (B)". One letter, such as N, counts
    only where no word does. Raises TableError where several columns may be meant, or a needed one isn't there.
    """
    frame = cells(path)
    taken = {name for column in given.values() for name in ([column] if isinstance(column, str) else column)}
    free = {str(c): re.sub(r"[^a-z0-9]", "", UNIT.sub("", str(c)).casefold()) for c in frame.columns if c not in taken}
    columns: dict[str, Column] = dict(given)
    for ours, headings in HEADINGS.items():
        if ours in given:
            continue
        words = [theirs for theirs, plain in free.items() if plain in headings and len(plain) > 1]
        found = words or [theirs for theirs, plain in free.items() if plain in headings]
        if len(found) > 1:
            raise TableError(
                f"several columns of {path} may be {ours}: {_listed(found)}; say which: {ours}={found[0]!r}"
            )
        if found:
            columns[ours] = found[0]
    for ours in need:
        if ours not in columns and not (ours == "tokens" and "flops" in columns):
            raise TableError(_missing(ours, frame, path))
    return columns


def in_words(columns: Mapping[str, Column]) -> str:
    """What was taken for what, in a sentence."""
    parts = [f"{ours} is {_listed([c] if isinstance(c, str) else c)}" for ours, c in columns.items()]
    if "tokens" not in columns and {"params", "flops"} <= set(columns):
        parts.append("tokens are flops / (6 params)")
    return "Read as: " + "; ".join(parts) + "."


def _missing(ours: str, frame: pd.DataFrame, path: str | Path) -> str:
    headings = list(map(str, frame.columns))
    words = {ours, ours.rstrip("s")}
    near = [c for c in headings if words & set(re.split(r"[^a-z0-9]+", c.casefold()))] or headings
    also = " or flops" if ours == "tokens" else ""
    return (
        f"can't tell which column of {path} is {ours}{also}; say it, e.g. {ours}={near[0]!r}; may be: {_listed(near)}"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
