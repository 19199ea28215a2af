"""Layers in stages: each group of devices holds some of them and passes microbatches of rows on to the next.

One program for all devices: activations of all stages lie in one array whose first axis is split over them, one stage's
layers are mapped over that axis, and from one iteration to the next the array is rotated, which the compiler makes a
collective-permute (Xu et al. 2021, "GSPMD", 3.3). Differentiating the loop gives the backward pipeline.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from lm.sharding import Layout, ShardingError

AT_MOST = 4  # microbatches for each stage, where nothing is said: the bubble is below a fifth
OPEN = PartitionSpec.UNCONSTRAINED


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Which stage computes what, when.

    With `repeats` 1 each stage holds neighbouring layers (Huang et al. 2018, "GPipe"). With more, layers are cut into
    stages x repeats chunks, chunk c is held by stage c mod stages, and microbatches go round in groups of one for each
    stage (Narayanan et al. 2021, 2.2, interleaved): less idle time for more communication.
    """

    stages: int
    microbatches: int
    repeats: int = 1

    @property
    def iterations(self) -> int:
        """Of one chunk each, on all stages at once."""
        return self.microbatches * self.repeats + self.stages - 1

    @property
    def bubble(self) -> float:
        """The share of iterations in which a stage has nothing to do."""
        return (self.stages - 1) / self.iterations

    def work(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """At each iteration and stage [T S]: the microbatch, the repeat, and whether it's one that must be done.

        Where it isn't, they are some that exist.
        """
        turn = np.arange(self.iterations)[:, None] - np.arange(self.stages)
        busy = (turn >= 0) & (turn < self.microbatches * self.repeats)
        group, place = np.divmod(np.where(busy, turn, 0), self.stages * self.repeats)
        return group * self.stages + place % self.stages, place // self.stages, busy


def schedule(where: Layout, rows: int) -> Schedule:
    """For a batch of so many rows. Raises ShardingError where the layout asks for what can't be."""
    ways = where.ways("batch")
    own = rows // ways if rows % ways == 0 else rows  # rows that can't be split are whole on every device
    step = where.stages if where.repeats > 1 else 1
    most = where.microbatches or AT_MOST * where.stages
    fits = [count for count in range(step, min(own, most) + 1, step) if own % count == 0]
    said = f"{rows} rows over {ways} devices" if own < rows else f"{rows} rows"
    if where.microbatches is not None and where.microbatches not in fits:
        groups = f" that is a multiple of stage={step}" if step > 1 else ""
        raise ShardingError(f"{said} can't be cut into microbatches={most}; give a divisor of {own}{groups}")
    if not fits:
        raise ShardingError(f"repeats={where.repeats} needs {step} microbatches at least, and {said} give none such")
    return Schedule(where.stages, fits[-1], where.repeats)


def run(
    stage: Callable[[Any, Any, jax.Array, Any], tuple[jax.Array, Any]],
    own: Any,
    shared: Any,
    x: jax.Array,
    reads: Any,
    where: Layout,
    remat: Callable[[Any], Any] = lambda function: function,
) -> tuple[jax.Array, Any]:
    """`stage(own, shared, x, reads) -> (y, said)` for all layers, split over the stages.

    own: parameters, layers first, of which a stage gets its part; shared: those that all have. x [B L D], and reads of
    B rows each. said: what layers say; here with axes for stages and repeats in front, each a mean over microbatches.
    remat: of what an iteration does where a stage has several chunks of layers: without any, the backward pass keeps a
    copy of the chosen chunk's weights for each iteration.
    """
    plan = schedule(where, len(x))
    microbatch_TS, repeat_TS, busy_TS = plan.work()
    first_S = np.arange(plan.stages) == 0
    enters_TS = (first_S & (repeat_TS == 0)) | ~busy_TS  # idle stages are kept on real rows: zeros might give NaN

    def one(own: Any, shared: Any, repeat: jax.Array, x: jax.Array, reads: Any) -> tuple[jax.Array, Any]:
        index = repeat if plan.repeats > 1 else 0
        return stage(jax.tree.map(lambda leaf: leaf[index], own), shared, x, reads)

    every = jax.vmap(one if plan.repeats == 1 else remat(one), spmd_axis_name=where.staged)
    own = jax.tree.map(lambda leaf: chunks(leaf, plan, where), own)
    # a copy for each stage, so that its gradients are added up once, after the loop
    shared = jax.tree.map(
        lambda leaf: _over(where, jnp.broadcast_to(leaf, (plan.stages, *leaf.shape)), where.staged), shared
    )

    def iteration(y: jax.Array, now: Any) -> tuple[jax.Array, Any]:
        enters_S, repeat_S, x, reads = now
        x = jnp.where(enters_S[:, None, None, None], x, _rotated(y))
        y, said = every(own, shared, repeat_S, x, reads)
        return y, (y, said)

    x, reads = jax.tree.map(lambda rows: _arriving(rows, microbatch_TS, plan, where), (x, reads))
    _, (y, said) = jax.lax.scan(
        iteration, jnp.zeros_like(x[0]), (jnp.asarray(enters_TS), jnp.asarray(repeat_TS, jnp.int32), x, reads)
    )
    return _leaving(y, plan, where), jax.tree.map(lambda leaf: _means(leaf, plan), said)


def chunks(leaf: jax.Array, plan: Schedule, where: Layout) -> jax.Array:
    """Stacked layers [N ...] as each stage's, in each repeat [S R n ...].

    Layers lie in their order. With one repeat that is where they are needed; with more, devices exchange them, all to
    all, once a step.
    """
    parts = leaf.reshape(plan.repeats, plan.stages, -1, *leaf.shape[1:]).swapaxes(0, 1)
    return _over(where, parts, where.staged)


def _arriving(rows: jax.Array, microbatch_TS: np.ndarray, plan: Schedule, where: Layout) -> jax.Array:
    """[B ...] -> [T S rows ...]. Rows i, i + M, ... make microbatch i, so that every device keeps its own."""
    parts = rows.reshape(-1, plan.microbatches, *rows.shape[1:]).swapaxes(0, 1)
    split = _rows(where, parts.shape[1])
    parts = _over(where, parts, None, split)
    return _over(where, parts[microbatch_TS], None, where.staged, split)


def _rotated(y: jax.Array) -> jax.Array:
    """What each stage gave, at the next one. (Slices, since the compiler knows their concatenation for what it is.)"""
    last = jax.lax.slice_in_dim(y, y.shape[0] - 1, None, axis=0)
    return jnp.concatenate([last, jax.lax.slice_in_dim(y, 0, -1, axis=0)], axis=0)


def _leaving(y_TS: jax.Array, plan: Schedule, where: Layout) -> jax.Array:
    """The last stage's output of each microbatch, as rows in their order [B L D].

    It comes by a sum over stages, of which all but one give zeros; so that the sum can leave its rows split over the
    stages, who share the work of what follows.
    """
    _, repeat_TS, busy_TS = plan.work()
    done = np.flatnonzero(busy_TS[:, -1] & (repeat_TS[:, -1] == plan.repeats - 1))  # microbatches leave in order
    last = np.arange(plan.stages) == plan.stages - 1
    y = jnp.sum(jnp.where(last[:, None, None, None], y_TS[done], 0), axis=1, dtype=y_TS.dtype).swapaxes(0, 1)
    y = y.reshape(-1, *y.shape[2:])
    shared = len(y) % (where.ways("batch") * plan.stages) == 0
    return _over(where, y, (*where.over("batch"), *where.staged) if shared else _rows(where, len(y)))


def _means(leaf: jax.Array, plan: Schedule) -> jax.Array:
    """[T S ...] -> [S R ...], a mean over what the stage did of each repeat."""
    _, repeat_TS, busy_TS = plan.work()

    def mean(stage: int, repeat: int) -> jax.Array:
        return jnp.mean(leaf[np.flatnonzero(busy_TS[:, stage] & (repeat_TS[:, stage] == repeat)), stage], axis=0)

    return jnp.stack([jnp.stack([mean(s, r) for r in range(plan.repeats)]) for s in range(plan.stages)])


def _rows(where: Layout, rows: int) -> tuple[str, ...] | None:
    return where.over("batch") if rows % where.ways("batch") == 0 else None


def _over(where: Layout, x: jax.Array, *axes: tuple[str, ...] | None) -> jax.Array:
    """x with its first axes split so, and the others as they are."""
    spec = PartitionSpec(*axes, *(OPEN,) * (x.ndim - len(axes)))
    return jax.lax.with_sharding_constraint(x, NamedSharding(where.mesh, spec))
