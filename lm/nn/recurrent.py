"""Recurrent networks with gates: LSTM and GRU.

What the gates take from the tokens is one product over all of them; what they take from the state is a product a token,
in a scan. The backward pass scans once more, for the gradients of the gates, and then has the weights' gradient as one
product over all tokens: JAX's own derivative of the scan would add to a whole matrix after every token.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from lm.config import ConfigError, config
from lm.nn.cost import Cost, dense, weights
from lm.nn.feedforward import to_residual
from lm.nn.kernels.linear import linear
from lm.nn.kernels.platform import fast
from lm.nn.kernels.spread import spread
from lm.nn.linear import Linear
from lm.nn.mixer import Mixer
from lm.nn.param import ones, param
from lm.nn.ssm.cache import Past, RecurrentLayer, Tokens, last_document
from lm.shapes import Array, Bool, Float, Int

UNROLL = 4  # tokens a turn of the scan: a token's products are so small that the turn itself costs as much

Step = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # (x [B G F], r [B G F], state [B S F]) -> state


class Recurrent(Mixer):
    """A recurrence h_t = f(W x_t + b, R h_{t-1}, state_{t-1}) with several gates, each with its own W and R.

    hidden None: the state is as wide as the model and is itself the output, as in the papers; else a projection of it.
    The state is float32 whatever the type of the computation.
    """

    gates: ClassVar[tuple[str, ...]]
    biased: ClassVar[tuple[str, ...]] = ()  # gates with a bias on R h too
    opened: ClassVar[tuple[str, ...]] = ()  # gates whose bias b starts at 1
    states: ClassVar[int]  # how many vectors the state has; the first is h

    hidden: int | None

    def __post_init__(self) -> None:
        if self.hidden is not None and self.hidden < 1:
            raise ConfigError(f"hidden={self.hidden} must be at least 1, or None for the model's width")

    @staticmethod
    @abc.abstractmethod
    def step(x: Float[Array, "B G F"], r: Float[Array, "B G F"], state: Float[Array, "B S F"]) -> Float[Array, "B S F"]:
        """The next state. x: W x_t + b, r: R h_{t-1}, of every gate in the order of `gates`."""

    def build(self, width: int, *, rngs: nnx.Rngs, depth: int = 1) -> GatedLayer:
        return GatedLayer(self, width, rngs=rngs, depth=depth)

    def cost(self, width: int, length: int) -> Cost:
        hidden = self.hidden or width
        gate = dense(width, hidden, length, bias=True) + dense(hidden, hidden, length)
        total = sum([gate] * len(self.gates), weights(hidden * len(self.biased)) + Cost(cache=self.states * hidden))
        return total if self.hidden is None else total + dense(hidden, width, length)


@config
class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997) with a forget gate (Gers et al. 2000).

    c_t = f c_{t-1} + i g, h_t = o tanh(c_t), with i, f, o = sigmoid and g = tanh of W x_t + R h_{t-1} + b. The forget
    gate's bias starts at 1, so that it starts out remembering (Jozefowicz et al. 2015).
    """

    gates: ClassVar[tuple[str, ...]] = ("input", "forget", "candidate", "output")
    opened: ClassVar[tuple[str, ...]] = ("forget",)
    states: ClassVar[int] = 2

    hidden: int | None = None

    @staticmethod
    def step(x: Float[Array, "B G F"], r: Float[Array, "B G F"], state: Float[Array, "B S F"]) -> Float[Array, "B S F"]:
        i, f, g, o = jnp.moveaxis(x + r, 1, 0)
        c = jax.nn.sigmoid(f) * state[:, 1] + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jnp.stack([jax.nn.sigmoid(o) * jnp.tanh(c), c], axis=1)


@config
class GRU(Recurrent):
    """The gated recurrent unit (Cho et al. 2014), reset after the recurrent product as in cuDNN and PyTorch.

    h_t = (1 - z) n + z h_{t-1}, with r, z = sigmoid(W x_t + R h_{t-1} + b) and
    n = tanh(W_n x_t + b_n + r (R_n h_{t-1} + c_n)).
    """

    gates: ClassVar[tuple[str, ...]] = ("reset", "update", "candidate")
    biased: ClassVar[tuple[str, ...]] = ("candidate",)
    states: ClassVar[int] = 1

    hidden: int | None = None

    @staticmethod
    def step(x: Float[Array, "B G F"], r: Float[Array, "B G F"], state: Float[Array, "B S F"]) -> Float[Array, "B S F"]:
        reset, update = jnp.moveaxis(jax.nn.sigmoid(x[:, :2] + r[:, :2]), 1, 0)
        new = jnp.tanh(x[:, 2] + reset * r[:, 2])
        return ((1 - update) * new + update * state[:, 0])[:, None]


class GatedLayer(RecurrentLayer):
    def __init__(self, spec: Recurrent, width: int, *, rngs: nnx.Rngs, depth: int):
        self.spec = spec
        self.hidden = hidden = spec.hidden or width
        self.input = nnx.Dict(
            {gate: Linear({"embed": width}, {"mlp": hidden}, bias=True, rngs=rngs) for gate in spec.gates}
        )
        for gate in spec.opened:
            self.input[gate].bias = param(rngs, (hidden,), ("mlp",), ones)
        self.recurrent = nnx.Dict(
            {g: Linear({"hidden": hidden}, {"mlp": hidden}, bias=g in spec.biased, rngs=rngs) for g in spec.gates}
        )
        out = functools.partial(Linear, {"mlp": hidden}, {"embed": width}, scale=to_residual(depth), rngs=rngs)
        self.out = None if spec.hidden is None else out()

    def mix(
        self, x: Float[Array, "B L D"], positions: Int[Array, "B L"], tokens: Tokens, past: Past
    ) -> tuple[Float[Array, "B L D"], Past]:
        w_DGF, b_GF = self._stacked(self.input)
        x_LBGF = linear(x.swapaxes(0, 1), w_DGF, contract=1)
        x_LBGF += spread(b_GF, x_LBGF)
        w_FGF, bias_GF = self._stacked(self.recurrent)
        form: Any = _recur if fast("cpu", "gpu", "tpu") else scanned
        states_LBSF = form(
            self.spec.step, x_LBGF, w_FGF, bias_GF, past.state, tokens.resets.swapaxes(0, 1), tokens.real.swapaxes(0, 1)
        )
        y_BLF = states_LBSF[:, :, 0].swapaxes(0, 1).astype(x.dtype)
        y = y_BLF if self.out is None else self.out(y_BLF)
        return y, Past(past.tails, states_LBSF[-1], last_document(tokens, past))

    def _stacked(self, gates: nnx.Dict) -> tuple[Float[Array, "_ G F"], Float[Array, "G F"]]:
        """Weights and biases of all gates, so that they are one product; no bias is 0."""
        each: list[Linear] = [gates[gate] for gate in self.spec.gates]
        none = jnp.zeros(self.hidden, each[0].weight.dtype)
        biases = [none if gate.bias is None else gate.bias[...] for gate in each]
        return jnp.stack([gate.weight[...] for gate in each], axis=1), jnp.stack(biases)

    def init_cache(self, batch: int, length: int, dtype: Any) -> Past:
        state = jnp.zeros((batch, self.spec.states, self.hidden), jnp.float32)
        return Past({}, state, jnp.zeros(batch, jnp.int32))


def scanned(
    step: Step,
    x_LBGF: Float[Array, "L B G F"],
    w_FGF: Float[Array, "F G F"],
    bias_GF: Float[Array, "G F"],
    state_BSF: Float[Array, "B S F"],
    resets_LB: Bool[Array, "L B"],
    real_LB: Bool[Array, "L B"],
) -> Float[Array, "L B S F"]:
    """The state after every token, by the definition. A token that isn't real leaves it as it was."""
    return _forward_scan(step, x_LBGF, w_FGF, bias_GF, state_BSF, resets_LB, real_LB)[0]


def _forward_scan(
    step: Step, x: jax.Array, w: jax.Array, bias: jax.Array, state: jax.Array, resets: jax.Array, real: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(the states after every token, R h before every token)."""

    def one(state: jax.Array, now: tuple[jax.Array, ...]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        x_BGF, reset, real = now
        before = jnp.where(_wide(reset), 0, state)
        r_BGF = (_product(before[:, 0].astype(w.dtype), w) + bias).astype(x_BGF.dtype)
        after = step(x_BGF.astype(jnp.float32), r_BGF.astype(jnp.float32), before)
        after = jnp.where(_wide(real), after, state)
        return after, (after, r_BGF)

    return lax.scan(one, state, (x, resets, real), unroll=UNROLL)[1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recur(step: Step, *arrays: jax.Array) -> jax.Array:
    return scanned(step, *arrays)


def _forward(step: Step, *arrays: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    states, r = _forward_scan(step, *arrays)
    return states, (*arrays, states, r)


def _backward(step: Step, saved: tuple[jax.Array, ...], d_states: jax.Array) -> tuple[jax.Array | None, ...]:
    x, w, bias, state, resets, real, states, r = saved
    before = jnp.where(_wide(resets), 0, jnp.concatenate([state[None], states[:-1]]))

    def one(d_after: jax.Array, now: tuple[jax.Array, ...]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        d_state, x, r, before, reset, real = now
        d_after += d_state
        pull = jax.vjp(step, x.astype(jnp.float32), r.astype(jnp.float32), before)[1]
        dx, dr, d_before = pull(jnp.where(_wide(real), d_after, 0))
        dr = dr.astype(w.dtype)
        d_before = d_before.at[:, 0].add(lax.dot_general(dr, w, (((1, 2), (1, 2)), ((), ())), **_FLOAT32))
        d_before = jnp.where(_wide(reset), 0, d_before)
        return jnp.where(_wide(real), d_before, d_after), (dx.astype(x.dtype), dr)

    turns = d_states, x, r, before, resets, real
    d_state, (dx, dr) = lax.scan(one, jnp.zeros_like(state), turns, reverse=True, unroll=UNROLL)
    h = before[:, :, 0].astype(w.dtype)
    dw = lax.dot_general(h, dr, (((0, 1), (0, 1)), ((), ())), **_FLOAT32)
    d_bias = jnp.sum(dr, axis=(0, 1), dtype=jnp.float32)
    return dx, dw.astype(w.dtype), d_bias.astype(bias.dtype), d_state, None, None


_recur.defvjp(_forward, _backward)

_FLOAT32: Any = {"preferred_element_type": jnp.float32}


def _product(h_BF: jax.Array, w_FGF: jax.Array) -> jax.Array:
    return lax.dot_general(h_BF, w_FGF, (((1,), (0,)), ((), ())), **_FLOAT32)


def _wide(mask: jax.Array) -> jax.Array:
    """A mask of rows over the vectors of their states."""
    return mask[..., None, None]
