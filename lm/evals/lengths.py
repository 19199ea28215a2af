"""The loss of held-out text in rows of other lengths than were trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from lm.config import ConfigError, config, is_config, replace
from lm.data import Data, Source
from lm.errors import UserError
from lm.evals.forward import teller
from lm.nn import RoPE
from lm.nn.rope import LinearScaling, RoPEScaling
from lm.train.measure import Found, Look, Measure

if TYPE_CHECKING:
    from lm.train.step import Program

Rows = dict[str, np.ndarray]  # tokens, targets [rows, length]
T = TypeVar("T")


@config
class Lengths(Measure):
    """Loss (nats a token) of the same held-out text in rows of each of `lengths`, beyond the trained one or below it.

    The text is the rows of the longest length that lie in one document each, `rows` of them at most, spread evenly. For
    a shorter length each is cut into several. So every length is asked for the same tokens; in longer rows more stands
    before them, and a model that can use it does better there.

    loss_N: the mean over rows of N tokens; in the details at each position. A length that the model has no positions
    for has no number. scaling: of every RoPE in the model, for this measure alone, its factor being N over the trained
    length; a model without RoPE has no numbers then.
    """

    lengths: tuple[int, ...]
    name: str = "lengths"
    rows: int = 128
    scaling: RoPEScaling | None = None

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ConfigError(f"rows={self.rows} must be at least 1")
        if not self.lengths or min(self.lengths) < 2 or any(max(self.lengths) % length for length in self.lengths):
            raise ConfigError(f"lengths={self.lengths}: each must be at least 2 and divide the longest")

    def prepare(self, program: Program, data: Source) -> Look:
        text = self._text(data)
        known = [length for length in self.lengths if self._is_for(program.model, length)]
        at = {length: self._at(length, program, data, text) for length in known}

        def look(params: Any) -> Found:
            found = {length: loss(params) for length, loss in at.items()}
            numbers = {f"loss_{length}": float(x.mean()) for length, x in found.items()}
            return Found(numbers, {f"loss_{length}": x.tolist() for length, x in found.items()})

        return look

    def _text(self, data: Source) -> Rows:
        if not isinstance(data, Data):
            raise UserError(f"measure {self.name} is for text, and this run reads {type(data).__name__}; use Data")
        longest = max(self.lengths)
        source = replace(data, {"length": longest, "batch": 1}).load()
        whole = [row for row in source.heldout_batches() if (row["segments"] == 1).all()]
        if not whole:
            raise UserError(
                f"measure {self.name}: no held-out document has a row of {longest} tokens; lower lengths, hold out more"
            )
        count = min(self.rows, len(whole))
        chosen = [whole[i * len(whole) // count] for i in range(count)]
        return {name: np.concatenate([row[name] for row in chosen]) for name in ("tokens", "targets")}

    def _is_for(self, model: Any, length: int) -> bool:
        return fits(model, length) and (self.scaling is None or has_rope(model))

    def _at(self, length: int, program: Program, data: Source, text: Rows) -> Callable[[Any], np.ndarray]:
        """What gives the loss at each position [length], the mean over all rows of so many tokens of the text."""
        from lm.train.step import program as program_of

        if self.scaling is not None:
            scaling = replace(self.scaling, {"factor": max(1.0, length / data.length)})
            program = program_of(with_scaling(program.model, scaling), program.training, program.layout)
        tell = teller(program)
        rows = {name: x.reshape(-1, length) for name, x in text.items()}
        count = len(rows["tokens"])
        each = min(count, max(1, data.batch * data.length // length))  # so that it takes no more memory than training
        filled = np.minimum(np.arange(-(-count // each) * each), count - 1).reshape(-1, each)

        def loss(params: Any) -> np.ndarray:
            found = []
            for part in filled:
                places = np.broadcast_to(np.arange(length, dtype=np.int32), (each, length))
                batch = {name: x[part] for name, x in rows.items()}
                told = tell(params, batch | {"positions": places, "segments": np.ones_like(places)})
                found.append(-np.asarray(told.logprob, np.float64))
            return np.concatenate(found)[:count].mean(axis=0)

        return loss


def fits(model: Any, length: int) -> bool:
    """Whether the model has positions for so many tokens."""
    try:
        model.check_context(length)
    except ConfigError:
        return False
    return True


def has_rope(model: Any) -> bool:
    return with_scaling(model, LinearScaling(factor=2.0)) != with_scaling(model, None)


def with_scaling(value: T, scaling: RoPEScaling | None) -> T:
    """A config with this scaling in every RoPE inside it."""
    changed: Any = value
    if isinstance(value, RoPE):
        changed = replace(value, {"scaling": scaling})
    elif is_config(value):
        inner = {f.name: with_scaling(getattr(value, f.name), scaling) for f in dataclasses.fields(changed)}
        changed = dataclasses.replace(changed, **inner)
    elif isinstance(value, tuple):
        changed = tuple(with_scaling(one, scaling) for one in value)
    return changed
