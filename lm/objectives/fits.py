"""Whether a model can learn an objective: what it sees, and what its output layer says. All raise ConfigError."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lm.config import ConfigError
from lm.models.decoder import Decoder
from lm.models.encoder import Encoder
from lm.models.headed import Headed
from lm.models.heads import MaskedLM
from lm.models.model import Model
from lm.nn.block import Block
from lm.nn.mask import Mask


def name(value: Any) -> str:
    return value if isinstance(value, str) else type(value).__name__


def layers(model: Model, objective: Any) -> list[Block]:
    """The layers of a model that reads one sequence and says a token at each place of it."""
    if isinstance(model, Decoder):
        return model.each()
    if isinstance(model, Headed) and isinstance(model.head, MaskedLM):
        return model.body.each()
    if isinstance(model, Encoder):
        raise ConfigError(f"{name(objective)} needs logits: take Headed(body=Encoder(...), head=MaskedLM())")
    what = f"Headed with {name(model.head)}" if isinstance(model, Headed) else name(model)
    raise ConfigError(f"{name(objective)} predicts the tokens of one sequence, each at its place; {what} does not")


def masks(blocks: Sequence[Block]) -> list[Mask]:
    """Of all layers that have one; a recurrent layer sees what came before."""
    found = (getattr(block.mixer, "mask", None) for block in blocks)
    return [mask for mask in found if mask is not None]


def causal(blocks: Sequence[Block], objective: Any) -> None:
    """No token may see later ones, unless they are of a prefix."""
    if not all(mask.causal for mask in masks(blocks)):
        raise ConfigError(
            f"{name(objective)} predicts tokens from earlier ones, and with Mask(causal=False) this model sees them; "
            "take Mask() or an objective that hides tokens, such as Masked"
        )


def bidirectional(blocks: Sequence[Block], objective: Any) -> None:
    """Tokens must see later ones."""
    if all(mask.causal for mask in masks(blocks)):
        raise ConfigError(
            f"{name(objective)} predicts a token from both its sides, and this model sees only what comes before; "
            "give its mixers Mask(causal=False)"
        )


def prefix(blocks: Sequence[Block], objective: Any) -> None:
    """The prefix must be seen from both sides, and what follows from one."""
    causal(blocks, objective)
    if not masks(blocks) or not all(mask.prefix for mask in masks(blocks)):
        raise ConfigError(
            f"{name(objective)} has a prefix whose tokens see each other; give a decoder's mixers Mask(prefix=True), "
            "or take an EncoderDecoder"
        )
