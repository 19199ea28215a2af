"""Sampling from a model that fills masks: from all masks to text, some tokens a step."""

from __future__ import annotations

import abc
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lm.config import ConfigError, config
from lm.errors import UserError
from lm.infer.loop import graph, positions_in
from lm.models import Execution, Model
from lm.nn import param
from lm.nn.kernels.platform import plain_forms
from lm.shapes import Array, Float


class Order(abc.ABC):
    """Which of the tokens that were drawn for masked places stay; the others are masked again."""

    @abc.abstractmethod
    def scores(self, probabilities: Float[Array, "B L"], key: jax.Array) -> Float[Array, "B L"]:
        """From the probability that the model gave each drawn token; the highest scores stay."""


@config
class MostConfident(Order):
    """The likeliest tokens stay ("low-confidence remasking", Nie et al. 2025, 2.4; Chang et al. 2022)."""

    def scores(self, probabilities: Float[Array, "B L"], key: jax.Array) -> Float[Array, "B L"]:
        return probabilities


@config
class AnyOrder(Order):
    """Any of them ("random remasking"): what the reverse process of the diffusion itself does."""

    def scores(self, probabilities: Float[Array, "B L"], key: jax.Array) -> Float[Array, "B L"]:
        return jax.random.uniform(key, probabilities.shape)


@config
class Unmasking:
    """How masks become text.

    steps: times that the model is asked, over all new tokens, spread evenly over blocks. block: new tokens that are
    filled before the next ones are begun, from left to right ("semi-autoregressive", Nie et al. 2025, 2.4); later
    blocks are masks meanwhile. None: all at once. temperature: of the distribution that tokens are drawn from; 0 takes
    the likeliest.
    """

    steps: int
    block: int | None = None
    order: Order = MostConfident()
    temperature: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps={self.steps} must be at least 1")
        if self.block is not None and self.block < 1:
            raise ConfigError(f"block={self.block} must be at least 1, or None for all new tokens at once")
        if self.temperature < 0:
            raise ConfigError(f"temperature={self.temperature} must not be negative; 0 takes the likeliest token")

    def schedule(self, new_tokens: int) -> list[tuple[int, int, int]]:
        """(first, end, how many stay) of each step: the block it works on, as new tokens.

        Raises ConfigError where blocks or steps don't divide what they are parts of.
        """
        size = self.block or new_tokens
        if new_tokens % size:
            raise ConfigError(f"block={size} must divide the {new_tokens} new tokens")
        blocks = new_tokens // size
        if self.steps % blocks or self.steps // blocks > size:
            raise ConfigError(f"steps={self.steps} must be a multiple of the {blocks} blocks, at most {new_tokens}")
        each = self.steps // blocks
        counts = np.diff(np.arange(each + 1) * size // each).tolist()
        return [(b * size, (b + 1) * size, count) for b in range(blocks) for count in counts]


def unmask(
    model: Model,
    params: param.Params,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    how: Unmasking,
    *,
    mask: int,
    seed: int = 0,
    execution: Execution | None = None,
) -> list[list[int]]:
    """Continues each prompt (tokens, any lengths, empty ones too) by `new_tokens`.

    mask: the mask token, the data's vocabulary for a model trained by `MaskedDiffusion`; tokens from it on are never
    drawn. Without a cache: every step reads all of every row.
    Raises UserError without prompts, ConfigError where the model has no positions for so many tokens.
    """
    if not prompts or new_tokens < 1:
        raise UserError(f"unmasking needs a prompt, which may be empty, and new_tokens={new_tokens} to be at least 1")
    model.check_context(max(map(len, prompts)) + new_tokens)
    lead = max(map(len, prompts))
    tokens = np.full((len(prompts), lead + new_tokens), mask, np.int32)
    segments = np.ones_like(tokens)
    for row, prompt in enumerate(prompts):  # on the right, so that all rows have their new tokens in the same places
        tokens[row, lead - len(prompt) : lead] = prompt
        segments[row, : lead - len(prompt)] = 0
    plan = np.asarray(how.schedule(new_tokens), np.int32) + np.array([lead, lead, 0], np.int32)
    execution = execution or Execution()
    cast = execution.cast(graph(model), params)
    out = _program(model, how.order, mask, execution)(
        cast, tokens, segments, plan, np.float32(how.temperature), jax.random.key(seed)
    )
    return np.asarray(out)[:, lead:].tolist()


@functools.lru_cache(maxsize=16)
def _program(model: Model, order: Order, mask: int, execution: Execution) -> Any:
    def whole(params: Any, tokens: Any, segments: Any, plan: Any, temperature: Any, key: Any) -> jax.Array:
        with plain_forms(execution.kernels == "plain"):
            module, positions = param.merge(graph(model), params), positions_in(segments)
            at = jnp.arange(tokens.shape[1])

            def step(carry: tuple[Any, Any], part: Any) -> tuple[tuple[Any, Any], None]:
                (tokens, number), (first, end, count) = carry, part
                draw_key, order_key = jax.random.split(jax.random.fold_in(key, number))
                hidden = module.hidden(tokens, positions, segments, None, execution)
                logits = module.logits(hidden.h)[..., :mask]
                warm = logits / jnp.where(temperature > 0, temperature, 1.0)
                noise = jnp.where(temperature > 0, jax.random.gumbel(draw_key, logits.shape), 0.0)
                drawn = jnp.argmax(warm + noise, axis=-1).astype(tokens.dtype)
                probabilities = jnp.take_along_axis(jax.nn.softmax(logits), drawn[..., None], axis=-1)[..., 0]
                open_ = (tokens == mask) & (at >= first) & (at < end)
                scores = jnp.where(open_, order.scores(probabilities, order_key), -jnp.inf)
                rank = jnp.argsort(jnp.argsort(-scores, axis=-1), axis=-1)
                return (jnp.where(open_ & (rank < count), drawn, tokens), number + 1), None

            return lax.scan(step, (tokens, 0), plan)[0][0]

    return jax.jit(whole)
