"""Several runs of one program as one: every array gets a leading axis of runs, and each device takes some of them.

Runs never meet: nothing is summed or exchanged over the axis, so one whose numbers are no numbers any more can't
disturb the others. On accelerators small models leave most of the device idle, and R of them take little longer than
one; on CPU there is nothing to gain.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lm.config import lift
from lm.nn import param
from lm.objectives import shapes
from lm.sharding import Layout, layout
from lm.train.lane import Lane
from lm.train.load import evaluate, heldout
from lm.train.run import Run
from lm.train.step import Program, State, program, stacked

RUNS = "runs"


class Alone:
    """One run by its program. What `Fleet` is for several."""

    def __init__(self, run: Run, where: Layout) -> None:
        shape, self.values = lift(run.train)
        self.program: Program = program(run.model, shape, where)
        self.together = run.steps_at_once

    def start(self, states: Sequence[State]) -> State:
        return states[0]

    def advance(self, state: State, batches: Sequence[list[Any]]) -> tuple[State, dict[str, jax.Array]]:
        """A step for each lane's batches. Metrics are [steps], or scalars where steps are dispatched one by one."""
        return self.program.advance(state, batches[0], self.values, self.together)

    def evaluate(self, state: State, lanes: Sequence[Lane]) -> list[dict[str, Any]]:
        """Each lane's numbers over its held-out text. Takes the averaged weights where there are any."""
        lane = lanes[0]
        weights = self.weights(state, 0)
        return [evaluate(self.program, weights, self.values, lane.dataset, lane.run.record.heldout_rows)]

    def weights(self, state: State, index: int) -> param.Params:
        """What a lane is judged by: its averaged weights where it keeps an average."""
        return state.ema or state.params

    def lane(self, state: State, index: int) -> State:
        """One lane's state."""
        return state


class Fleet:
    """Runs of one group (see `Run.group`) as one program, spread over the devices of a layout."""

    def __init__(self, runs: Sequence[Run], where: Layout) -> None:
        first, devices = runs[0], where.mesh.devices.flatten().tolist()
        shape, _ = lift(first.train)
        self.program = program(first.model, shape, layout(devices=[devices[0]]))
        self.size = -(-len(runs) // len(devices)) * len(devices)  # filled up with copies of the last run
        filled = [*runs, *[runs[-1]] * (self.size - len(runs))]
        columns = [lift(run.train)[1] for run in filled]
        self.values = {path: np.asarray([c[path] for c in columns], _dtype(columns[0][path])) for path in columns[0]}
        self.together = first.train.execution.at_once(first.flops / first.train.steps * self.size / len(devices))
        self.compiled = _programs(self.program, tuple(devices))
        self.sharding = NamedSharding(_mesh(devices), PartitionSpec(RUNS))
        self.first = first

    def start(self, states: Sequence[State]) -> State:
        """Each run's state, made or read as if it were alone, side by side on the devices."""
        states = [jax.device_get(state) for state in states]
        states += [states[-1]] * (self.size - len(states))
        return jax.tree.map(lambda *leaves: jax.device_put(np.stack(leaves), self.sharding), *states)

    def advance(self, state: State, batches: Sequence[list[Any]]) -> tuple[State, dict[str, jax.Array]]:
        """A step for each lane's batches. Metrics are [runs, steps]."""
        each = [stacked(own, self.together) for own in batches]
        each += [each[-1]] * (self.size - len(each))
        together = {name: jax.device_put(np.stack([b[name] for b in each]), self.sharding) for name in each[0]}
        return self.compiled["steps"](state, together, np.int32(len(batches[0])), self.values)

    def evaluate(self, state: State, lanes: Sequence[Lane]) -> list[dict[str, Any]]:
        """Each lane's numbers over the held-out text, which is the same for all of a group."""
        params = state.ema or state.params
        found = heldout(
            lambda batch: self.compiled["evaluate"](params, dict(batch), self.values),
            lanes[0].dataset,
            self.first.record.heldout_rows,
        )
        count = int(found.pop("evaluated")[0])
        return [{**{n: float(v[i]) for n, v in found.items()}, "evaluated": count} for i in range(len(lanes))]

    def lane(self, state: State, index: int) -> State:
        return self.compiled["lane"](state, index)

    def weights(self, state: State, index: int) -> param.Params:
        """A lane's weights, averaged where it keeps an average, for programs of one run on one device."""
        one = self.lane(state, index)
        return jax.device_put(jax.device_get(one.ema or one.params), self.program.params_sharding)

    def memory(self) -> int:
        """Bytes a device needs for a step, as the compiler says."""
        data, train = self.first.data, self.first.train
        one = shapes(train.objective, self.first.model, data.batch, data.length)
        lead = self.size, self.together
        batch = {name: jax.ShapeDtypeStruct((*lead, *x.shape), x.dtype) for name, x in one.items()}
        state = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((self.size, *x.shape), x.dtype), self.program.abstract_state()
        )
        found = self.compiled["steps"].lower(state, batch, np.int32(1), self.values).compile().memory_analysis()
        both = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
        return both + found.temp_size_in_bytes


def _mesh(devices: Sequence[Any]) -> Mesh:
    return Mesh(np.asarray(devices), (RUNS,), axis_types=(AxisType.Auto,))


@functools.lru_cache(maxsize=8)
def _programs(one: Program, devices: tuple[Any, ...]) -> dict[str, Any]:
    """The program's parts for many runs: "steps", "evaluate", and "lane", which takes one run's state out."""
    mesh, runs, whole = _mesh(devices), PartitionSpec(RUNS), PartitionSpec()

    def each(function: Any, inputs: tuple[PartitionSpec, ...], outputs: Any) -> Any:
        mapped = jax.vmap(function, in_axes=tuple(0 if spec == runs else None for spec in inputs))
        return jax.shard_map(mapped, mesh=mesh, in_specs=inputs, out_specs=outputs, check_vma=False)

    steps = each(one._steps, (runs, runs, whole, runs), (runs, runs))
    options = one.training.execution.compiler_options()
    return {
        "steps": jax.jit(steps, donate_argnums=0, compiler_options=options),
        "evaluate": jax.jit(each(one._evaluate, (runs, whole, runs), runs)),
        "lane": jax.jit(lambda state, index: jax.tree.map(lambda x: x[index], state)),
    }


def _dtype(value: float | int) -> Any:
    return np.int32 if isinstance(value, int) else np.float32
