"""What an experiment asks to be looked at in a model, at each evaluation, besides its held-out loss."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from lm.config import replace
from lm.data import Source
from lm.models import as_decoder
from lm.nn import param
from lm.objectives import fits

if TYPE_CHECKING:
    from lm.train.step import Program


class Found(NamedTuple):
    """numbers: a row of the run's rows, its split the measure's name. details: what they are made of, in full: lists
    with an entry for each example, head or position, as a row of details.jsonl."""

    numbers: dict[str, float]
    details: dict[str, list[Any]]


Look = Callable[[param.Params], Found]


class Measure(abc.ABC):
    """A measure as a value of `Recording.measures`. It looks at the averaged weights where a run keeps an average."""

    name: str

    def check(self, program: Program) -> None:
        """Raises ConfigError for a model that can't be measured: all but decoders that predict the next token, unless a
        measure knows better."""
        fits.causal(as_decoder(program.model, f"measure {self.name}").each(), f"measure {self.name}")

    @abc.abstractmethod
    def prepare(self, program: Program, data: Source) -> Look:
        """The measure for models of this program, on examples of its own or of `data`, the same for every seed.

        Raises UserError where it makes no sense for them."""


def prepared(measure: Measure, program: Program, data: Source) -> Look:
    """The same object for runs that differ in seeds and numbers alone, so that its programs are compiled once."""
    return _prepared(measure, program, replace(data, {"seed": 0}))


@functools.lru_cache(maxsize=64)
def _prepared(measure: Measure, program: Program, data: Source) -> Look:
    measure.check(program)
    return measure.prepare(program, data)
