"""How a model's scales follow its width, so that the best learning rate of a narrow one is that of a wide one.

Standard: every hyperparameter is what it says, at any width. MuP: the maximal update parametrisation (Yang and Hu 2021;
Yang et al. 2022, "Tensor Programs V", table 8), relative to a base width, where it is the standard one to the bit. With
m = width / base_width:

                                 initial deviation          logits, scores       Adam's rate
    hidden matrices              1/sqrt(fan in), as ever    -                    rate / m
    token tables, in and out     that of the base width     logits / m           rate
    vectors, other tables        as ever                    -                    rate
    attention, heads wider       -                          scores / sqrt(m)     -

(The last makes 1/sqrt(head width) into 1/head width; more heads change nothing.)
Initial values and the model's function are values of the model (`embed_std`, `logit_scale`, `Attention.scale`), so that
whatever uses the weights later computes the same function; `mup` sets them, and a run without them is refused. Rates
are read off the parameters' logical axes. All inner widths are taken to grow in proportion to the model's.

Weight decay isn't divided by m: a parameter loses rate * weight_decay of itself an update, whatever its factor, so that
the time over which weights forget is the same at every width (Wang and Aitchison 2024; Kosson et al. 2025 find that
transfer needs it). Adam's eps isn't scaled, though gradients fall as 1/m: it must stay far below them.
"""

from __future__ import annotations

import abc
import math
from typing import TYPE_CHECKING, Any

import jax

from lm.config import ConfigError, config, diff, replace
from lm.models import Decoder, Model, as_decoder
from lm.models.widen import Heads, widened
from lm.nn.attention import Attention
from lm.train.optimizers import LOOKUP, STACKED, Axes, Optimizer, hidden_matrix

if TYPE_CHECKING:
    from lm.train.run import Run

GROWING = frozenset(
    {"embed", "heads", "kv_heads", "head_dim", "mlp", "hidden", "kv_rank", "q_rank", "dt_rank"}
)  # with the model
FIXED = frozenset({"gate"})  # one number


class Parametrization(abc.ABC):
    """What a width changes besides shapes."""

    @abc.abstractmethod
    def of(self, model: Model) -> Model:
        """`model` with the values that this parametrisation gives it at its width."""

    @abc.abstractmethod
    def factors(self, axes: Any, model: Model, optimizer: Optimizer) -> Any:
        """A tree like `axes` with each parameter's share of the learning rate, or None where all have 1.

        Raises ConfigError for an optimizer whose rule isn't known.
        """

    def check(self, model: Model, optimizer: Optimizer) -> None:
        """Raises ConfigError for an optimizer or a model that this parametrisation isn't made for."""
        self.factors({}, model, optimizer)
        for path, (found, needed) in diff(model, self.of(model)).items():
            raise ConfigError(
                f"{self} at width {model.width} needs model.{path}={needed}, found {found}; "
                "lm.train.mup sets all that it needs"
            )


@config
class Standard(Parametrization):
    """Every parameter has the learning rate itself (the standard parametrisation of Yang et al. 2022)."""

    def of(self, model: Model) -> Model:
        return model

    def factors(self, axes: Any, model: Model, optimizer: Optimizer) -> None:
        return None


@config
class MuP(Parametrization):
    """The maximal update parametrisation. `mup(run, base_width=...)` makes a run of it.

    base_width: the width at which it is the standard one, and for which the learning rate is meant.
    heads: whether heads become more with the width, or wider, which the attention's scale has to follow.
    For AdamW, Lion and Muon (`Optimizer.width_exponent` has the sources). Adafactor is refused: its steps follow the
    parameters' own size, which asks for exponents of its own (Everett et al. 2024).
    """

    base_width: int
    heads: Heads = "more"

    def __post_init__(self) -> None:
        if self.base_width < 1:
            raise ConfigError(f"base_width={self.base_width} must be at least 1")

    def of(self, model: Model) -> Decoder:
        model = as_decoder(model, "MuP")
        at_base = model.width == self.base_width
        changes: dict[str, Any] = {"logit_scale": self.base_width / model.width}
        if not at_base:  # explicit values are the user's, and the same at every width
            changes |= {"embed_std": 1 / math.sqrt(self.base_width)} if model.embed_std is None else {}
            changes |= {"embed_scale": math.sqrt(self.base_width)} if model.embed_scale is None else {}
        if self.heads == "wider":
            for i, block in enumerate(model.pattern):
                if not isinstance(block.mixer, Attention):
                    raise ConfigError(f"MuP(heads='wider') isn't known for {type(block.mixer).__name__}; take 'more'")
                p = block.mixer.width_of_head(model.width)
                scale = None if at_base else math.sqrt(p * self.base_width / model.width) / p
                changes[f"block.{i}.mixer.scale" if isinstance(model.block, tuple) else "block.mixer.scale"] = scale
        return replace(model, changes)

    def factors(self, axes: Any, model: Model, optimizer: Optimizer) -> Any:
        exponent = optimizer.width_exponent()
        if exponent is None:
            raise ConfigError(
                f"how {type(optimizer).__name__}'s rate follows the width isn't known; MuP is for AdamW, Lion and Muon"
            )
        if model.width == self.base_width:
            return None
        hidden = (self.base_width / model.width) ** exponent
        return jax.tree.map(lambda a: hidden if _grows(a) else 1.0, axes, is_leaf=lambda a: isinstance(a, tuple))


def mup(run: Run, base_width: int, heads: Heads = "more") -> Run:
    """`run` in the maximal update parametrisation; at the base width only its name changes.

    Raises ConfigError for a model with a `logit_scale` (or for wider heads an attention scale) of its own.
    """
    if isinstance(run.train.parametrization, Standard):
        untouched = MuP(base_width=run.model.width, heads=heads).of(run.model)  # unless somebody chose a value
        for path, (own, _) in diff(run.model, untouched).items():
            raise ConfigError(f"MuP sets model.{path}, and this model has {own} there; leave it at its default")
    made = MuP(base_width=base_width, heads=heads)
    return replace(run, {"model": made.of(run.model), "train.parametrization": made})


def at_width(run: Run, width: int, heads: Heads = "more") -> Run:
    """`run` with its model `widened`, in its own parametrisation (MuP knows what becomes of its heads)."""
    rule = run.train.parametrization
    return replace(
        run,
        {
            "model": rule.of(
                widened(
                    as_decoder(run.model, "a sweep over widths"), width, rule.heads if isinstance(rule, MuP) else heads
                )
            )
        },
    )


def _grows(axes: Axes) -> bool:
    """True for a hidden matrix. Raises ConfigError for an axis of which nobody said whether it grows."""
    for name in axes:
        if name not in GROWING | FIXED | LOOKUP | STACKED:
            raise ConfigError(f"MuP: nobody said whether the axis '{name}' of a parameter grows with the width")
    return hidden_matrix(axes)
