"""One token missing in the middle of a text: what models of different objectives can all be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lm.config import ConfigError, config, lift, lower
from lm.data import Data, Source
from lm.data.packing import Batch
from lm.errors import UserError
from lm.train.measure import Found, Look, Measure

if TYPE_CHECKING:
    from lm.train.step import Program


@config
class Infilling(Measure):
    """How well the token in the middle of held-out rows is told, the same rows and token for every objective.

    Each model is asked as it was trained (`Objective.blanked`), and sees what it can: NextToken what comes before;
    Masked and MaskedDiffusion both sides; SpanCorruption both sides, too, but not that one token is missing rather than
    several. So this compares what objectives make of equal text, and no likelihoods of it.

    accuracy: the share of tokens that are the likeliest; nats: the mean of -log p; examples: how many rows, in whole
    batches, `rows` at most, spread evenly over those that lie in one document.
    """

    name: str = "infilling"
    rows: int = 512

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ConfigError(f"rows={self.rows} must be at least 1")

    def check(self, program: Program) -> None:
        """Any model will do that its objective lets be asked, which `prepare` finds out."""

    def prepare(self, program: Program, data: Source) -> Look:
        if not isinstance(data, Data):
            raise UserError(f"measure {self.name} is for text, and this run reads {type(data).__name__}; use Data")
        codec, training = data.load().tokenizer, program.training
        # numbers that training takes as inputs weigh what is trained, and are no part of the nats
        objective = lower(training.objective, dict.fromkeys(lift(training.objective)[1], 0.0))
        place = data.length // 2
        asked = [objective.blanked(batch, place, codec, program.model) for batch in self._batches(data, place)]
        ask = program.apply(lambda model, batch: objective(model, batch, training.execution))

        def look(params: Any) -> Found:
            each = [ask(params, batch) for batch in asked]
            nats, correct, examples = (
                float(np.sum([getattr(sums, name) for sums in each], dtype=np.float64))
                for name in ("nats", "correct", "tokens")
            )
            return Found({"accuracy": correct / examples, "nats": nats / examples, "examples": examples}, {})

        return look

    def _batches(self, data: Data, place: int) -> list[Batch]:
        dataset = data.load()
        parts = list(dataset.heldout_batches())
        text = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        whole = (text["segments"] == 1).all(axis=1) & (text["targets"][:, place] != dataset.tokenizer.eot)
        found = np.flatnonzero(whole)
        if not len(found):
            raise UserError(
                f"measure {self.name}: no held-out document has a row of {data.length} tokens; lower data.length or "
                "hold out more"
            )
        count = min(self.rows, len(found))
        each = min(count, data.batch)
        chosen = found[np.arange(count) * len(found) // count][: count // each * each]
        return [{name: x[rows] for name, x in text.items()} for rows in chosen.reshape(-1, each)]
