"""How a model's program is laid out: what changes speed and memory, and numbers only by rounding."""

from __future__ import annotations

import os
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from lm import sharding
from lm.config import ConfigError, config
from lm.nn import param
from lm.nn.kernels.low_precision import Products
from lm.nn.kernels.platform import platform

DISPATCH = {"cpu": 1.4e11, "gpu": 1.6e12, "tpu": 1.6e12}  # FLOPs: 1 to 2 s on two cores, some ms on an accelerator
AT_MOST = 16  # steps of a dispatch
LIBRARY = "xla_cpu_experimental_ynn_fusion_type"  # what XLA:CPU leaves to its library
STREAM = "residual stream"  # the name, for rematerialisation, of what goes into a layer
HOST = "pinned_host"
SCAN_FROM = 12  # layers: from here the compile time of an unrolled program costs more than scanning it


@config
class Execution:
    """layers: "scan" compiles one layer and loops over it, "unroll" writes all of them out; "auto" goes by depth.

    remat: what the backward pass computes again instead of keeping: nothing, all but matrix products ("dots"),
    or everything inside a layer ("full"); "offload" does that too, and keeps what goes into the layers in the host's
    memory until then.
    compute: the type of activations and of the weights as the layers see them; parameters stay float32, and so do
    norms' statistics, softmax and the loss.
    products: of the layers' linear maps while training: in the type of the computation, or of 8-bit numbers
    (`lm.nn.kernels.low_precision`). Tables, output layer, routers, experts and attention keep the former; held-out
    loss, measures and generation are of the former alone.
    steps_at_once: how many training steps to dispatch as one program; None: up to 16, at most two
    seconds on two cores. Memory is asked for and given back once a dispatch; and a run stops between dispatches.
    kernels: "auto" takes the fast form of each layer on this platform, "plain" its definition.
    """

    layers: Literal["auto", "scan", "unroll"] = "auto"
    remat: Literal["none", "dots", "full", "offload"] = "none"
    compute: Literal["float32", "bfloat16"] = "float32"
    products: Products = "native"
    kernels: Literal["auto", "plain"] = "auto"
    steps_at_once: int | None = None

    def __post_init__(self) -> None:
        if self.steps_at_once is not None and self.steps_at_once < 1:
            raise ConfigError(f"steps_at_once={self.steps_at_once} must be at least 1, or None to choose")

    def unrolls(self, layers: int) -> bool:
        return self.layers == "unroll" or (self.layers == "auto" and layers < SCAN_FROM)

    @property
    def done_again(self) -> bool:
        """Whether the backward pass does the whole forward pass a second time."""
        return self.remat in ("full", "offload")

    def at_once(self, flops: float) -> int:
        """How many steps of so many FLOPs to dispatch as one program."""
        if self.steps_at_once is not None:
            return self.steps_at_once
        return max(1, min(AT_MOST, int(DISPATCH[platform()] / flops)))

    def compiler_options(self) -> dict[str, Any] | None:
        """XLA's options for a training step.

        On CPU its library gets the products alone: reductions there keep their inputs from being fused away, a tenth
        of the step's memory. (Decoding is left alone: some shapes gain, and grouped attention loses almost half.)
        """
        chosen = LIBRARY in os.environ.get("XLA_FLAGS", "")
        if self.kernels == "plain" or platform() != "cpu" or chosen:
            return None
        return {LIBRARY: "LIBRARY_FUSION_TYPE_DOT"}

    def checkpoint(self, function: Any) -> Any:
        """`function` with this rematerialisation. What it calls STREAM is what "offload" keeps."""
        policies = jax.checkpoint_policies
        if self.remat == "none":
            return function
        if self.remat == "full":
            return jax.checkpoint(function)
        if self.remat == "dots":
            return jax.checkpoint(function, policy=policies.dots_with_no_batch_dims_saveable)
        check_host_memory()
        to = {"offload_src": "device", "offload_dst": HOST}
        names: dict[str, Any] = {"names_which_can_be_saved": [], "names_which_can_be_offloaded": [STREAM]}
        return jax.checkpoint(function, policy=policies.save_and_offload_only_these_names(**names, **to))

    def cast(self, graph: nnx.GraphDef, params: param.Params) -> param.Params:
        """Float parameters in the type of the computation, but for those that are declared precise."""

        def one(p: jax.Array, precise: bool) -> jax.Array:
            return p.astype(self.compute) if jnp.issubdtype(p.dtype, jnp.floating) and not precise else p

        return params if self.compute == "float32" else jax.tree.map(one, params, param.precise(graph, params))


def check_host_memory() -> None:
    """Raises ConfigError where a program can't keep arrays in the host's memory. A machine that isn't here can."""
    where = sharding.in_scope()
    if where is not None and where.stages > 1 and platform() == "tpu":  # "Bitcast cannot have different memory spaces"
        raise ConfigError("XLA doesn't compile remat='offload' in a pipeline for TPU; use remat='full' with stage=")
    device = jax.local_devices()[0]
    here = sharding.platform_in_scope() in (None, device.platform)
    if here and HOST not in {memory.kind for memory in device.addressable_memories()}:
        raise ConfigError(f"remat='offload' needs {HOST} memory, which {device.platform} has none of; use remat='full'")
