"""Optimizers as configs. `make` builds the optax transformation, inside the step, where every number may be a tracer.

Which rule a parameter gets is read from its logical axes, never from its name or rank. Axes that merely stack
parameters (`layers`, `expert`) don't count, and a split output such as ("heads", "head_dim") counts as one, so

    ("layers", "embed", "heads", "head_dim")   is one matrix a layer: embed -> heads * head_dim
    ("layers", "heads", "head_dim")            is a bias: one vector a layer

Weight decay acts on matrices, embeddings among them (the rule of GPT-3 and Llama), never on norms and biases. It is
decoupled: p <- p - rate * (update + weight_decay * p) with rate the scheduled learning rate (Loshchilov & Hutter
2019; as in PyTorch and optax). The structure of a state depends on the optimizer's type and its structural fields
(those that aren't Scalar), never on a number.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from lm.config import ConfigError, Scalar, config

Axes = tuple[str | None, ...]

STACKED = frozenset({"layers", "expert"})  # one parameter each along these
LOOKUP = frozenset({"vocab", "positions", "buckets"})  # rows of a table (or classes), not a map between spaces


@config
class Optimizer:
    """An update rule. `learning_rate` is the peak; the schedule's multiplier comes on top of it."""

    learning_rate: Scalar = 1e-3

    def make(self, learning_rate: Any, axes: Any, factors: Any = None) -> optax.GradientTransformation:
        """The transformation whose updates are added to the parameters.

        learning_rate: the rate of this update (peak times multiplier), number or tracer.
        axes: a tree like the parameters', with the tuple of logical axis names of each.
        factors: a tree like the parameters', with a number for each that multiplies its update but not its weight
        decay; None: 1 for all.
        Gradients and parameters are float32 (master weights).
        """
        raise NotImplementedError

    def width_exponent(self) -> float | None:
        """How a hidden matrix's rate falls with the width under the maximal update parametrisation: as width^-this.

        None where no rule is known to us. See `lm.train.parametrization`.
        """
        return None

    def state_axes(self, params: Any, axes: Any) -> Any:
        """Logical axes of each array of the state, in a tree like `make(...).init(params)`: () for counters.

        `params` may be abstract. Moments have their parameter's axes, so they are sharded as it is.
        """
        state = jax.eval_shape(self.make(0.0, axes).init, params)
        known = {_path(path): leaf for path, leaf in jax.tree.leaves_with_path(axes, is_leaf=_is_axes)}

        def find(path: Any, leaf: Any) -> Axes:
            keys = _path(path)
            for start in range(len(keys)):
                found = known.get(keys[start:])
                if found is not None:
                    return self._moment_axes(keys[:start], found, leaf.ndim)
            return (None,) * leaf.ndim

        return jax.tree.map_with_path(find, state)

    def _moment_axes(self, owner: tuple[str, ...], axes: Axes, ndim: int) -> Axes:
        return axes if ndim == len(axes) else (None,) * ndim


@config
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2; Kingma & Ba 2015)."""

    b1: Scalar = 0.9
    b2: Scalar = 0.95
    eps: Scalar = 1e-8
    weight_decay: Scalar = 0.1

    def __post_init__(self) -> None:
        _check(self, positive=("learning_rate", "eps"), share=("b1", "b2"), not_negative=("weight_decay",))

    def make(self, learning_rate: Any, axes: Any, factors: Any = None) -> optax.GradientTransformation:
        return optax.chain(
            _times(optax.scale_by_adam(self.b1, self.b2, self.eps), factors),
            optax.add_decayed_weights(self.weight_decay, mask=decay_mask(axes)),
            optax.scale_by_learning_rate(learning_rate),
        )

    def width_exponent(self) -> float:
        return 1.0  # Yang et al. 2022, table 8


@config
class Lion(Optimizer):
    """The sign of an interpolated momentum (Chen et al. 2023, algorithm 2).

    The paper takes a learning rate 3 to 10 times smaller than AdamW's and a weight decay as much larger.
    """

    learning_rate: Scalar = 1e-4
    b1: Scalar = 0.9
    b2: Scalar = 0.99
    weight_decay: Scalar = 1.0

    def __post_init__(self) -> None:
        _check(self, positive=("learning_rate",), share=("b1", "b2"), not_negative=("weight_decay",))

    def make(self, learning_rate: Any, axes: Any, factors: Any = None) -> optax.GradientTransformation:
        return optax.chain(
            _times(optax.scale_by_lion(self.b1, self.b2), factors),
            optax.add_decayed_weights(self.weight_decay, mask=decay_mask(axes)),
            optax.scale_by_learning_rate(learning_rate),
        )

    def width_exponent(self) -> float:
        return 1.0  # an update's entries are of one size, as Adam's are (Yang and Littwin 2023, entrywise updates)


@config
class Muon(Optimizer):
    """Momentum orthogonalised by Newton-Schulz for matrices, AdamW for all else (Jordan et al. 2024).

    Each layer's matrix is orthogonalised by itself. Embeddings, output heads, norms and biases take AdamW's rule
    with `adam_rate` times the learning rate.

    rms: the update's root mean square, as a share of the learning rate (Liu et al. 2025, eq. 4: 0.2 matches AdamW,
    so that its learning rate and weight decay carry over). None: scaled by sqrt(max(1, outputs / inputs)) instead,
    the original's rule, which wants a rate of about 0.02.
    """

    momentum: Scalar = 0.95
    rms: Scalar | None = 0.2
    iterations: int = 5
    weight_decay: Scalar = 0.1
    adam_rate: Scalar = 1.0
    b1: Scalar = 0.9
    b2: Scalar = 0.95
    eps: Scalar = 1e-8

    def __post_init__(self) -> None:
        share, positive = ("momentum", "b1", "b2"), ("learning_rate", "eps", "adam_rate", "iterations")
        _check(self, positive=positive, share=share, not_negative=("weight_decay",))
        if self.rms is not None and not self.rms > 0:
            raise ConfigError(f"Muon: rms={self.rms} must be above 0, or None")

    def make(self, learning_rate: Any, axes: Any, factors: Any = None) -> optax.GradientTransformation:
        labels = jax.tree.map(lambda a: "muon" if hidden_matrix(a) else "adam", axes, is_leaf=_is_axes)
        numbers = jax.tree.map(lambda a: _dimension_numbers(a) or optax.MaskedNode(), axes, is_leaf=_is_axes)
        rules: dict[Hashable, optax.GradientTransformation] = {
            "muon": optax.chain(
                contrib.scale_by_muon(
                    beta=self.momentum, ns_steps=self.iterations, weight_dimension_numbers=lambda _: numbers
                ),
                optax.stateless(lambda updates, _: jax.tree.map(self._scaled, updates, numbers)),
            ),
            "adam": optax.chain(optax.scale_by_adam(self.b1, self.b2, self.eps), optax.scale(self.adam_rate)),
        }
        return optax.chain(
            _times(optax.partition(rules, labels), factors),
            optax.add_decayed_weights(self.weight_decay, mask=decay_mask(axes)),
            optax.scale_by_learning_rate(learning_rate),
        )

    def width_exponent(self) -> float:
        # An update's spectral norm should go as sqrt(outputs / inputs) (Yang, Simon and Bernstein 2023, condition 1).
        # The original's does where both sides grow, and a fixed root mean square gives sqrt(width) too much.
        return 0.0 if self.rms is None else 0.5

    def _scaled(self, update: jax.Array, numbers: Any) -> jax.Array:
        fan_in, fan_out = (math.prod(update.shape[i] for i in part) for part in numbers)
        if self.rms is None:
            return update * math.sqrt(max(1.0, fan_out / fan_in))
        return update * (self.rms * math.sqrt(max(fan_in, fan_out)))


@config
class Adafactor(Optimizer):
    """Adam's second moment kept as a row and a column a matrix (Shazeer & Stern 2018, algorithm 4).

    The state of a matrix with at least `factored_from` inputs and outputs is inputs + outputs numbers instead of
    their product. The update is clipped to root mean square `clip` (section 6); with `relative` it is scaled by that
    of the parameter, at least `floor` (section 8), for which a learning rate of about 1e-2 is usual.
    """

    learning_rate: Scalar = 1e-2
    decay: Scalar = 0.8
    clip: Scalar = 1.0
    floor: Scalar = 1e-3
    eps: Scalar = 1e-30
    weight_decay: Scalar = 0.0
    relative: bool = True
    factored_from: int = 128

    def __post_init__(self) -> None:
        positive = ("learning_rate", "decay", "clip", "floor", "eps", "factored_from")
        _check(self, positive=positive, share=(), not_negative=("weight_decay",))

    def make(self, learning_rate: Any, axes: Any, factors: Any = None) -> optax.GradientTransformation:
        return optax.chain(
            _times(_scale_by_factored(self, axes), factors),
            optax.add_decayed_weights(self.weight_decay, mask=decay_mask(axes)),
            optax.scale_by_learning_rate(learning_rate),
        )

    def _moment_axes(self, owner: tuple[str, ...], axes: Axes, ndim: int) -> Axes:
        parts = matrix(axes)
        averaged = {"row": 1, "column": 0}.get(owner[-1] if owner else "")
        if parts is None or averaged is None:
            return super()._moment_axes(owner, axes, ndim)
        return tuple(name for i, name in enumerate(axes) if i not in parts[averaged])


# ---- what the axes say about a parameter ---------------------------------------------------------------------


def groups(axes: Axes) -> list[tuple[int, ...]]:
    """Indices of the axes one parameter really has: no stacking axes, heads and their width as one.

    An axis stacks what comes after it: the experts that a router's scores are of, its last axis, are its output.
    """
    found: list[tuple[int, ...]] = []
    for i, name in enumerate(axes):
        if name in STACKED and i < len(axes) - 1:
            continue
        if name == "head_dim" and found and axes[found[-1][-1]] in ("heads", "kv_heads"):
            found[-1] += (i,)
        else:
            found.append((i,))
    return found


def matrix(axes: Axes) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Indices of a matrix's input and output axes, or None for what isn't a matrix."""
    found = groups(axes)
    return (found[0], found[1]) if len(found) == 2 else None


def hidden_matrix(axes: Axes) -> bool:
    """True for a matrix that maps one space to another: not an embedding, a lookup table or an output head."""
    return matrix(axes) is not None and not LOOKUP & set(axes)


def hidden_matrices(axes: Any) -> Any:
    """A tree of bools: True for a hidden matrix."""
    return jax.tree.map(hidden_matrix, axes, is_leaf=_is_axes)


def decay_mask(axes: Any) -> Any:
    """A tree of bools: True where weight decay acts."""
    return jax.tree.map(lambda a: len(groups(a)) >= 2, axes, is_leaf=_is_axes)


def _times(rule: optax.GradientTransformation, factors: Any) -> optax.GradientTransformation:
    """`rule` with each update multiplied by its factor; its state is as it was."""
    if factors is None:
        return rule

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = rule.update(updates, state, params)
        return jax.tree.map(lambda u, factor: u if factor == 1 else u * factor, updates, factors), state

    return optax.GradientTransformation(rule.init, update)


def _dimension_numbers(axes: Axes) -> contrib.MuonDimensionNumbers | None:
    parts = matrix(axes)
    return contrib.MuonDimensionNumbers(*parts) if parts and hidden_matrix(axes) else None


def _is_axes(value: Any) -> bool:
    return isinstance(value, tuple) and all(name is None or isinstance(name, str) for name in value)


def _path(path: Any) -> tuple[str, ...]:
    return tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


# ---- Adafactor's second moment -------------------------------------------------------------------------------


class FactoredState(NamedTuple):
    """Adafactor's second moments: row and column of factored matrices, full for the rest (None where absent)."""

    count: Any
    row: Any
    column: Any
    full: Any


def _scale_by_factored(spec: Adafactor, axes: Any) -> optax.GradientTransformation:
    # optax's own takes the two longest axes, whatever they mean, and one norm for all stacked layers.
    def init(params: Any) -> FactoredState:
        leaves, tree = jax.tree.flatten(params)
        moments = [_moments(jnp.square(p) * 0, a, spec) for p, a in zip(leaves, tree.flatten_up_to(axes), strict=True)]
        return FactoredState(jnp.zeros([], jnp.int32), *(tree.unflatten(part) for part in zip(*moments, strict=True)))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        grads, tree = jax.tree.flatten(updates)
        decay = 1 - (state.count + 1.0) ** -spec.decay
        columns = (tree.flatten_up_to(part) for part in (axes, params, state.row, state.column, state.full))
        done, moments = [], []
        for grad, names, param, *old in zip(grads, *columns, strict=True):
            fresh = _moments(jnp.square(grad) + spec.eps, names, spec)
            row, column, full = (
                None if new is None else decay * was + (1 - decay) * new for was, new in zip(old, fresh, strict=True)
            )
            step = _whitened(grad, row, column, full, names)
            step /= jnp.maximum(1.0, _rms(step, names) / spec.clip)
            done.append(step * jnp.maximum(_rms(param, names), spec.floor) if spec.relative else step)
            moments.append((row, column, full))
        parts = (tree.unflatten(part) for part in zip(*moments, strict=True))
        return tree.unflatten(done), FactoredState(optax.safe_increment(state.count), *parts)

    return optax.GradientTransformation(init, update)


def _moments(square: jax.Array, axes: Axes, spec: Adafactor) -> list[jax.Array | None]:
    """[row, column, full] of one squared gradient."""
    parts = matrix(axes)
    if parts is None or min(math.prod(square.shape[i] for i in part) for part in parts) < spec.factored_from:
        return [None, None, square]
    inputs, outputs = parts
    return [square.mean(outputs), square.mean(inputs), None]


def _whitened(grad: jax.Array, row: Any, column: Any, full: Any, axes: Axes) -> jax.Array:
    """The gradient over the root of its second moment."""
    if full is not None:
        return grad * jax.lax.rsqrt(full)
    inputs, outputs = matrix(axes) or ((), ())
    # The roots are taken apart: the product of two tiny moments isn't a float32.
    row = jax.lax.rsqrt(jnp.expand_dims(row, outputs) / jnp.expand_dims(row, outputs).mean(inputs, keepdims=True))
    return grad * row * jax.lax.rsqrt(jnp.expand_dims(column, inputs))


def _rms(x: jax.Array, axes: Axes) -> jax.Array:
    """Root mean square of each stacked parameter, with dimensions kept."""
    own = tuple(i for group in groups(axes) for i in group)
    return jnp.sqrt(jnp.mean(jnp.square(x), own, keepdims=True))


def _check(spec: Any, positive: tuple[str, ...], share: tuple[str, ...], not_negative: tuple[str, ...]) -> None:
    name = type(spec).__name__
    for key in positive:
        if not 0 < getattr(spec, key) < math.inf:
            raise ConfigError(f"{name}: {key}={getattr(spec, key)} must be above 0")
    for key in share:
        if not 0 <= getattr(spec, key) < 1:
            raise ConfigError(f"{name}: {key}={getattr(spec, key)} must be at least 0 and below 1")
    for key in not_negative:
        if not 0 <= getattr(spec, key) < math.inf:
            raise ConfigError(f"{name}: {key}={getattr(spec, key)} must be 0 or more")
