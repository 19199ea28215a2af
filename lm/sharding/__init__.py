"""Mesh and rules: where parameters and activations live."""

from lm.sharding.mesh import Layout, constrain, devices_in_scope, layout, use
from lm.sharding.rules import MESH_AXES, ShardingError, ShardingRules, ddp, fsdp, fsdp_tp, shardings

__all__ = [
    "MESH_AXES",
    "Layout",
    "ShardingError",
    "ShardingRules",
    "constrain",
    "ddp",
    "devices_in_scope",
    "fsdp",
    "fsdp_tp",
    "layout",
    "shardings",
    "use",
]
