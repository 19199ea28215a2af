"""Models whose logits are known: a tiny one with a forward pass of its own, and one that says what it is told."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.config import lift
from lm.models import Decoder
from lm.nn import Learned, param
from lm.sharding import layout
from lm.train import Training
from lm.train.step import Program
from tests.tiny import BLOCKS, made


class Tiny(NamedTuple):
    """A model with wide random weights. forward: tokens [n L] to log-probabilities [n L V], float64."""

    program: Program
    params: param.Params
    forward: Callable[[np.ndarray], np.ndarray]


@cache
def tiny(vocab: int, seed: int = 0, positions: int = 40) -> Tiny:
    model = Decoder(vocab=vocab, width=16, layers=1, block=BLOCKS["gqa"], position=Learned(length=positions))
    graph, params = made(model, seed, std=0.7)
    logits = jax.jit(lambda tokens: param.merge(graph, params)(tokens))

    def forward(tokens: np.ndarray) -> np.ndarray:
        found = np.asarray(logits(tokens.astype(np.int32)), np.float64)
        return found - np.log(np.exp(found).sum(-1, keepdims=True))

    return Tiny(Program(model, lift(Training(steps=1))[0], layout()), params, forward)


class Oracle:
    """Stands for a model and its program: its logits are a function of the tokens it reads."""

    training = SimpleNamespace(execution=None)

    def __init__(self, logits: Callable[[jax.Array], jax.Array]) -> None:
        self.logits = logits

    def __call__(self, tokens: jax.Array, *others: Any) -> jax.Array:
        return self.logits(tokens)

    def apply(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda params, *arrays: function(self, *jax.tree.map(jnp.asarray, arrays))
