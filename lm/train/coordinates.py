"""The coordinate check: do activations, and what training makes of them, keep their size as a model gets wider?

The test of a parametrisation by Yang et al. 2022 (appendix D.1 and figure 5): train a few steps at several widths and
compare how large single coordinates are. Where one grows with the width, a wide model's best learning rate is smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lm import sharding
from lm.config import ConfigError, lift, replace
from lm.models import as_decoder
from lm.models.widen import Heads
from lm.train.parametrization import at_width
from lm.train.run import Run
from lm.train.schedules import Constant
from lm.train.step import Program

BOUND = 0.2  # of the exponent: between the widths of a usual check, a factor of 8, sizes may differ by 1.5


@dataclass(frozen=True, kw_only=True)
class Coordinate:
    """One activation at one width after `step` updates: the means of |x| and of |x - its initial value|."""

    activation: str
    width: int
    step: int
    size: float
    change: float


@dataclass(frozen=True, kw_only=True)
class CoordinateCheck:
    """All that was measured, and how it grows: as width^slope, by activation and step."""

    coordinates: tuple[Coordinate, ...]
    bound: float

    def slope(self, activation: str, step: int, of: str = "size") -> float:
        """The exponent with which an activation's `size` or `change` grows: a line through all widths, log on log."""
        mine = [c for c in self.coordinates if (c.activation, c.step) == (activation, step)]
        return float(np.polyfit(np.log([c.width for c in mine]), np.log([getattr(c, of) for c in mine]), 1)[0])

    def faults(self) -> tuple[str, ...]:
        """A line for each size, at any step, and each change since the start, at the last one, that follows the width.

        A slope must be between -bound and bound. Logits may fall as width^-1/2 besides: in the maximal update
        parametrisation they start so, and single steps change them so, until what is learned is larger.
        """
        found = []
        last = max(c.step for c in self.coordinates)
        for activation in dict.fromkeys(c.activation for c in self.coordinates):
            lowest = -self.bound - (0.5 if activation == "logits" else 0.0)
            slopes = {f"size after {step} steps": self.slope(activation, step) for step in range(last + 1)}
            slopes[f"change in {last} steps"] = self.slope(activation, last, "change")
            for what, slope in slopes.items():
                if not lowest <= slope <= self.bound:
                    found.append(f"{activation}: {what} goes as width^{slope:+.2f}")
        return tuple(found)

    @property
    def passed(self) -> bool:
        return not self.faults()


def coordinate_check(
    run: Run,
    widths: Sequence[int],
    steps: int = 4,
    heads: Heads = "more",
    batches: Sequence[Mapping[str, np.ndarray]] | None = None,
    seeds: int = 2,
    bound: float = BOUND,
) -> CoordinateCheck:
    """Trains `run` at each width for `steps` updates at its full learning rate and measures activations after each.

    The run's parametrisation is what is checked. heads: what becomes of them under one that doesn't say. batches: one
    to train on each step, the first of which is measured; None: the run's own data. Sizes are averaged over `seeds`
    initialisations.
    """
    if len(set(widths)) < 2:
        raise ConfigError(f"a slope over the width needs at least 2 widths, got {list(widths)}")
    as_decoder(run.model, "the coordinate check")
    if batches is None:
        dataset = run.dataset()
        batches = [dataset.batch(n) for n in range(steps)]
    run = replace(run, {"train.steps": steps, "train.schedule": Constant()})
    found = []
    for width in widths:
        each = _measured(at_width(run, width, heads), batches[:steps], seeds)
        for step, activation in each[0]:
            size, change = np.mean([one[step, activation] for one in each], axis=0)
            found.append(Coordinate(activation=activation, width=width, step=step, size=size, change=change))
    return CoordinateCheck(coordinates=tuple(found), bound=bound)


def _measured(run: Run, batches: Sequence[Mapping[str, np.ndarray]], seeds: int) -> list[dict[Any, Any]]:
    """(step, activation) -> (size, change), for each seed."""
    shape, values = lift(run.train)
    program = Program(run.model, shape, sharding.layout())
    put = [program.layout.put(batch) for batch in batches]

    @jax.jit
    def stream(params: Any) -> dict[str, jax.Array]:
        return _stream(program.module(params), put[0])

    found: list[dict[Any, Any]] = []
    for seed in range(run.seed, run.seed + seeds):
        state, mine = program.init(seed), {}
        start = stream(state.params)
        for step in range(len(batches) + 1):
            for name, x in stream(state.params).items():
                mine[step, name] = float(jnp.abs(x).mean()), float(jnp.abs(x - start[name]).mean())
            if step < len(batches):
                state, _ = program.step(state, put[step], values)
        found.append(mine)
    if not np.isfinite([list(mine.values()) for mine in found]).all():
        raise ConfigError(f"width {run.model.width} diverged within {len(batches)} steps; lower the learning rate")
    return found


def _stream(model: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The residual stream before the first layer and after each, and the logits."""
    x = model.embed(batch["tokens"], batch["positions"])
    found = {"embeddings": x}
    for number, layer in enumerate(model.layers(), 1):
        x, _, _ = layer(x, batch["positions"], batch["segments"])
        found[f"layer {number}"] = x
    return {**found, "logits": model.logits(model.finish(x))}
