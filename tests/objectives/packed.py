"""Random documents packed as training reads them, models for each kind of objective, and tiny runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lm.config import replace, walk
from lm.data import Data, Text
from lm.data.dataset import Dataset, Source
from lm.data.packing import Batch, Stream, concatenate
from lm.data.store import Split
from lm.data.tokenizers import Codec
from lm.models import Decoder, Encoder, EncoderDecoder, Headed, MaskedLM, Model
from lm.nn import Block, Mask, cross_attention, mha
from lm.objectives import Objective
from lm.objectives.draws import Draws, draws
from lm.train import Recording, Run, Training
from lm.train.loop import Machine
from tests.tiny import FF, HEADS, WIDTH

QUIET = Machine(quiet=True)
TIMES = {"seconds", "tokens_per_second", "mfu"}

PIECES = [b" a", b" the", b"re", b"x", b".", b"!", b"\n", b" ", b"in", b" on", b"ly", b" we", b"q", b"z", b" to", b"e"]
CODEC = Codec([*PIECES, b""], eot=len(PIECES))
EXTRA = 12  # rows of the models' tables for what objectives add
VOCAB = CODEC.vocab + EXTRA

SIZES: dict[str, Any] = {"vocab": VOCAB, "width": WIDTH, "layers": 2}
CAUSAL = Decoder(**SIZES, block=Block(mixer=mha(HEADS), ff=FF))
PREFIX = Decoder(**SIZES, block=Block(mixer=mha(HEADS, mask=Mask(prefix=True)), ff=FF))
SEES_ALL = Block(mixer=mha(HEADS, mask=Mask(causal=False)), ff=FF)
ENCODER = Encoder(**SIZES, block=SEES_ALL)
MASKED = Headed(body=ENCODER, head=MaskedLM())
READS = Block(mixer=mha(HEADS), ff=FF, cross=cross_attention(HEADS))
BOTH = EncoderDecoder(encoder=ENCODER, decoder=Decoder(**SIZES, block=READS))


def of_bytes(model: Model) -> Any:
    """The model with tables for bytes and for what objectives add."""
    return replace(model, {path: 256 + EXTRA for path, _, _ in walk(model) if path.split(".")[-1] == "vocab"})


def stream(seed: int, length: int, shortest: int = 1, longest: int = 30, count: int = 60) -> tuple[Stream, Any]:
    """A stream of random documents in rows of `length`, and its order."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(shortest, longest + 1, count) + 1
    tokens = rng.integers(0, CODEC.eot, sizes.sum()).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    tokens[offsets[:-1]] = CODEC.eot
    made = Stream(Split(tokens, offsets), length, CODEC.eot)
    return made, made.shuffled(seed, 0)


def packed(seed: int = 0, rows: int = 4, length: int = 48, **sizes: int) -> Batch:
    """Rows of packed documents; the last of all rows is padded."""
    made, order = stream(seed, length, **sizes)
    return concatenate([made.read(order, 0, rows - 1), made.read(order, made.rows - 1, 1)])


def drawn(seed: int = 0, n: int = 0, rows: int = 4) -> Draws:
    return draws(seed, n, 0, rows, rows)


def prepare(objective: Objective, model: Model, batch: Batch, seed: int = 0, n: int = 0) -> Batch:
    return objective.prepare(batch, drawn(seed, n, len(batch["tokens"])), CODEC, model)


class Rows(Dataset):
    """Batches of random documents, as a dataset."""

    def __init__(self, batch: int = 4, length: int = 48, seed: int = 0) -> None:
        self.data: Source = Data(batch=batch, length=length, seed=seed)
        self.fingerprint, self.tokenizer, self.heldout_rows = "rows", CODEC, batch
        self.stream, self.order = stream(0, length)

    def batch(self, n: int, host: int = 0, hosts: int = 1) -> Batch:
        low, count = self.share(host, hosts)
        return self.stream.read(self.order, n * self.data.batch + low, count)

    def heldout_batches(self, rows: int | None = None, host: int = 0, hosts: int = 1) -> Iterator[Batch]:
        yield self.batch(0, host, hosts)
        yield self.batch(1, host, hosts)


def run(folder: Path, model: Model, objective: Objective, **training: Any) -> Run:
    """A few steps on random text."""
    return Run(
        model=of_bytes(model),
        data=Data(corpus=Text(path=str(folder)), length=32, batch=4, heldout=0.2),
        train=Training(steps=6, objective=objective, **training),
        record=Recording(every=1, checkpoint_every=2, keep=3),
    )


def write_text(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(40):
        (folder / f"{i}.txt").write_text("".join(rng.choice(list("abcdefgh. \n"), size=rng.integers(20, 200))))
    return folder
