"""The mesh of devices, and the scope in which activations are constrained to it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lm.config import ConfigError, dumps, unknown
from lm.sharding.rules import MESH_AXES, PRESETS, ShardingError, ShardingRules, ddp, fsdp, fsdp_tp


@dataclass(frozen=True)
class Layout:
    """A mesh with the rules for it: all that a program must know of the machine."""

    mesh: Mesh
    rules: ShardingRules

    def __hash__(self) -> int:  # the rules hold dicts; meshes of one shape over the same devices are one
        return hash((self.mesh, dumps(self.rules)))

    def batch(self, stacked: bool = False) -> NamedSharding:
        """Rows of a batch over the data-parallel devices; `stacked` batches have an axis in front of the rows."""
        return NamedSharding(self.mesh, PartitionSpec(*(None,) * stacked, self._rows()))

    def _rows(self) -> tuple[str, ...]:
        return self.rules.activations.get("batch", ())

    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    def put(self, batch: Mapping[str, Any], stacked: bool = False) -> dict[str, jax.Array]:
        """This host's rows of a batch, or of several `stacked` ones, as arrays of the whole."""
        where, ways = self.batch(stacked), math.prod(self.mesh.shape[axis] for axis in self._rows())
        rows = next(iter(batch.values())).shape[int(stacked)] * jax.process_count()
        if rows % ways:
            raise ShardingError(
                f"a batch of {rows} rows can't be split over {ways} devices; change data.batch or --mesh"
            )
        return {name: jax.make_array_from_process_local_data(where, value) for name, value in batch.items()}


def layout(mesh: str = "", rules: str | ShardingRules | None = None, devices: Sequence[Any] | None = None) -> Layout:
    """`layout("fsdp=4,tensor=2")`. Sizes left out are 1; an empty mesh is one device.

    rules: a preset's name or a value; None picks fsdp_tp, fsdp or ddp by the axes that are larger than 1.
    """
    sizes = dict.fromkeys(MESH_AXES, 1)
    for part in filter(None, mesh.replace(" ", "").split(",")):
        name, _, size = part.partition("=")
        if name not in sizes:
            raise ConfigError(unknown(name, MESH_AXES, "the mesh has no axis"))
        if not size.isdigit() or int(size) < 1:
            raise ConfigError(f"mesh axis '{part}' must be of the form {name}=N with N at least 1")
        sizes[name] = int(size)
    if isinstance(rules, str):
        if rules not in PRESETS:
            raise ConfigError(unknown(rules, PRESETS, "there are no sharding rules"))
        rules = PRESETS[rules]()
    elif rules is None:
        rules = fsdp_tp() if sizes["tensor"] > 1 else fsdp() if sizes["fsdp"] > 1 else ddp()
    devices = jax.devices() if devices is None else devices
    count = math.prod(sizes.values())
    if count > len(devices):
        raise ConfigError(f"mesh {mesh} needs {count} devices, this machine has {len(devices)}")
    made = jax.make_mesh(tuple(sizes.values()), MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices[:count])
    return Layout(made, rules)


_current: ContextVar[Layout | None] = ContextVar("layout", default=None)


@contextlib.contextmanager
def use(where: Layout) -> Iterator[None]:
    """The scope in which `constrain` knows the mesh: entered while a program is traced."""
    token = _current.set(where)
    try:
        yield
    finally:
        _current.reset(token)


def devices_in_scope() -> int:
    """How many devices the program that is being traced is split over; 1 outside a `use` scope."""
    where = _current.get()
    return 1 if where is None else where.mesh.size


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Asks the compiler to split an activation by its logical axes; outside a `use` scope it does nothing.

    An axis that the mesh doesn't divide is kept whole: unlike a parameter's, its size is the data's.
    """
    where = _current.get()
    if where is None or where.mesh.size == 1:
        return x
    parts = []
    for name, size in zip(names, x.shape, strict=True):
        over = where.rules.activations.get(name, ()) if name else ()
        ways = math.prod(where.mesh.shape[axis] for axis in over)
        parts.append(over if over and ways > 1 and size % ways == 0 else None)
    return jax.lax.with_sharding_constraint(x, NamedSharding(where.mesh, PartitionSpec(*parts)))
