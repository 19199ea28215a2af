"""Mesh and rules: where parameters and activations live."""

from lm.sharding.mesh import Layout, constrain, devices_in_scope, in_scope, layout, platform_in_scope, use
from lm.sharding.rules import (
    MESH_AXES,
    ShardingError,
    ShardingRules,
    ddp,
    ep,
    every,
    fsdp,
    fsdp_tp,
    pp,
    shardings,
    sp,
    sp_ulysses,
)

__all__ = [
    "MESH_AXES",
    "Layout",
    "ShardingError",
    "ShardingRules",
    "constrain",
    "ddp",
    "devices_in_scope",
    "ep",
    "every",
    "fsdp",
    "fsdp_tp",
    "in_scope",
    "layout",
    "platform_in_scope",
    "pp",
    "shardings",
    "sp",
    "sp_ulysses",
    "use",
]
