"""Activations by their names in transformers."""

from lm.hub.errors import HubError
from lm.hub.family import Unfit
from lm.hub.fields import Fields
from lm.nn.feedforward import GELU, Activation, ReLU, SiLU, SquaredReLU, Tanh

NAMES: dict[str, Activation] = {
    "gelu": GELU(approximate=False),
    "gelu_new": GELU(approximate=True),
    "gelu_pytorch_tanh": GELU(approximate=True),
    "gelu_fast": GELU(approximate=True),
    "gelu_python": GELU(approximate=False),
    "relu": ReLU(),
    "relu2": SquaredReLU(),
    "silu": SiLU(),
    "swish": SiLU(),
    "tanh": Tanh(),
}


def read(fields: Fields, field: str, default: str) -> Activation:
    """The activation that a field names."""
    name = fields(field, default)
    if name not in NAMES:
        raise HubError(f"{fields.where}: {field}={name!r} isn't supported, only {', '.join(NAMES)}")
    return NAMES[name]


def write(activation: Activation, prefer: str | None = None) -> str:
    """Its first name, or the preferred one where that is a name of it."""
    names = [name for name, known in NAMES.items() if known == activation]
    if not names:
        raise Unfit(f"transformers has no name for {activation}")
    return prefer if prefer in names else names[0]
