"""What one device holds, by the cost model: before anything is compiled, for meshes that are tried and for checking.

Parameters, gradients and optimizer state are exact, from how the rules split each array. What the backward pass keeps
is counted in the step's own jaxpr; what the compiler needs for a moment goes by a layer's own arrays. Against XLA's own
count it is within a tenth over "data", "fsdp" and "sequence"; over "tensor" and "stage" it says up to a half too much
(tests/plan/test_memory.py).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import jax
from flax import nnx

from lm import sharding
from lm.config import replace as changed
from lm.models import Decoder, Model
from lm.models.pipeline import schedule
from lm.nn import param
from lm.nn.kernels.platform import Platform
from lm.plan.step import Step, one_of
from lm.sharding import Layout
from lm.train import Training, memory
from lm.train.optimizers import Optimizer

TRACED = 7  # rows that are traced: a prime, so that what has as many numbers as a parameter is one
# how many layers' arrays there are besides what is kept: what the backward pass of a layer makes, and where it has to
# be done again what its forward pass makes; measured on scanned layers (tests/plan/test_memory.py)
MOMENT = {"none": 1.2, "dots": 1.8, "full": 2.0, "offload": 2.0}


@dataclass(frozen=True)
class Bytes:
    """Of one device. kept: what the forward pass leaves for the backward pass. moment: what is needed meanwhile.
    layer: what one layer makes in a forward pass, which is part of these two."""

    params: float
    gradients: float
    optimizer: float
    average: float
    batch: float
    kept: float
    moment: float
    layer: float

    @property
    def state(self) -> float:
        """What stays from step to step."""
        return self.params + self.optimizer + self.average

    @property
    def activations(self) -> float:
        return self.kept + self.moment

    @property
    def total(self) -> float:
        return self.state + self.gradients + self.batch + self.activations


@dataclass(frozen=True)
class Abstract:
    """A step's arrays without a device: what is the same for every layout."""

    params: Any
    axes: Any
    optimizer: Any
    optimizer_axes: Any
    batch: dict[str, jax.ShapeDtypeStruct]


def abstract(step: Step) -> Abstract:
    return Abstract(*_arrays(step.model, step.training.optimizer), step.batch())


@functools.lru_cache(maxsize=8)
def _arrays(model: Model, optimizer: Optimizer) -> tuple[Any, Any, Any, Any]:
    module = nnx.eval_shape(lambda: model.build(rngs=nnx.Rngs(params=0)))
    _, params = param.split(module)
    axes = param.axes(module)
    state = jax.eval_shape(optimizer.make(0.0, axes).init, params)
    return params, axes, state, optimizer.state_axes(params, axes)


def predicted(step: Step, where: Layout, platform: Platform = "tpu", arrays: Abstract | None = None) -> Bytes:
    """Raises ShardingError where the model can't be split so.

    platform: whose forms of the layers. A GPU's keep what a TPU's do, and which of them run can only be tried there.
    """
    arrays = arrays or abstract(step)
    where.rules.check(arrays.axes)
    step.model.check_split(where)
    params = _share(arrays.params, arrays.axes, where)
    kept, layer = _activations(step, where, platform, arrays.params, arrays.axes)
    accumulated = 2 if step.training.accumulate > 1 else 1  # the sum so far, and a part's own
    return Bytes(
        params=params,
        gradients=params * accumulated,
        optimizer=_share(arrays.optimizer, arrays.optimizer_axes, where),
        average=params if step.training.ema is not None else 0,
        batch=sum(_size(x) for x in arrays.batch.values()) / where.ways("batch"),
        kept=kept,
        moment=MOMENT[step.training.execution.remat] * layer,
        layer=layer,
    )


def cache_bytes(model: Model, where: Layout, rows: int, length: int, itemsize: int = 2) -> float:
    """Keys and values (or states) of `rows` sequences of `length` tokens while a decoder serves them, on one device."""
    heads = where.ways("kv_heads")
    if isinstance(model, Decoder):
        least = min((getattr(block.mixer, "kv_heads", None) or heads for block, _ in model.stacks().values()))
        heads = heads if least % heads == 0 else 1  # fewer key heads than devices are replicated
    return math.ceil(rows / where.ways("batch")) * model.cost(length).cache_bytes(itemsize) / heads


def _share(arrays: Any, axes: Any, where: Layout) -> float:
    placed = sharding.shardings(arrays, axes, where.rules, where.mesh)
    sizes = jax.tree.map(lambda x, s: math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize, arrays, placed)
    return float(sum(jax.tree.leaves(sizes)))


def _size(x: Any) -> int:
    return math.prod(x.shape) * x.dtype.itemsize


def _activations(step: Step, where: Layout, platform: Platform, params: Any, axes: Any) -> tuple[float, float]:
    """(kept, made by one layer) bytes of one device for one part of a batch."""
    layers = max(1, getattr(step.model, "layers", 1))
    kept = sum(size for size, _ in _each(step, where, platform, params, axes))
    if step.training.execution.remat == "none":
        return kept, kept / layers
    plain = replace(step, training=changed(step.training, {"execution.remat": "none"}))
    return kept, sum(size for size, _ in _each(plain, where, platform, params, axes)) / layers


def largest(step: Step, where: Layout, platform: Platform = "tpu") -> list[tuple[float, int, str]]:
    """What most is kept in for the backward pass, by shape: bytes of one device, how many arrays, and the shape that
    they have for one part of a batch before heads and hidden units are split."""
    arrays = abstract(step)
    rows = max(1, round(step.rows / step.training.accumulate / where.ways("batch")))
    found: dict[str, list[float]] = {}
    for size, shape in _each(step, where, platform, arrays.params, arrays.axes):
        sides = (side // TRACED * rows if side % TRACED == 0 else side for side in shape)
        found.setdefault(f"[{', '.join(map(str, sides))}]", []).append(size)
    return sorted(((sum(sizes), len(sizes), shape) for shape, sizes in found.items()), reverse=True)


def _each(step: Step, where: Layout, platform: Platform, params: Any, axes: Any) -> list[tuple[float, tuple[int, ...]]]:
    """Bytes on one device and shape of each array that is kept of one part of a batch.

    What ends in the model's width is whole along heads and hidden units, all else is split over them. Casts of
    parameters lie as these do, and parameters themselves are counted elsewhere.
    """
    rows = step.rows / step.training.accumulate / where.ways("batch")
    if where.stages > 1:  # a stage keeps its own layers' arrays, of every iteration of the pipeline
        plan = schedule(where, step.rows // step.training.accumulate)
        rows *= plan.iterations / plan.microbatches / plan.repeats / plan.stages
    training = changed(step.training, {"accumulate": 1})  # parts are alike: traced once
    placed = sharding.shardings(params, axes, where.rules, where.mesh)
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(placed), strict=True)
    weights = {p.size: math.prod(s.shard_shape(p.shape)) for p, s in pairs}
    found = []
    for shape, item in residuals(step.model, training, step.length, platform):
        size = math.prod(shape)
        if size in weights:
            found.append((0.0 if item == 4 else float(weights[size] * item), shape))
        else:
            split = 1 if shape[-1:] == (step.model.width,) else where.ways("heads")
            found.append((rows * size / TRACED * item / where.ways("length") / split, shape))
    return found


@functools.lru_cache(maxsize=64)
def residuals(
    model: Model, training: Training, length: int, platform: Platform
) -> tuple[tuple[tuple[int, ...], int], ...]:
    """(shape, bytes of a number) of each array kept of TRACED rows between the forward and the backward pass."""
    with sharding.use(one_of(platform)):
        found = memory.residuals(model, training, TRACED, length)
    return tuple((x.shape, x.dtype.itemsize) for x in found)
