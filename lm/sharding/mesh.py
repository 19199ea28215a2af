"""The mesh of devices, and the scope in which activations are constrained to it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lm.config import ConfigError, dumps, unknown
from lm.sharding.rules import MESH_AXES, PRESETS, ShardingError, ShardingRules, every

PIPELINE = ("microbatches", "repeats")  # what a mesh says of its pipeline


@dataclass(frozen=True)
class Layout:
    """A mesh with the rules for it: all that a program must know of the machine.

    microbatches, repeats: of the pipeline over `stages` (see `lm.models.pipeline.Schedule`); None chooses.
    """

    mesh: Mesh
    rules: ShardingRules
    microbatches: int | None = None
    repeats: int = 1

    def __hash__(self) -> int:  # the rules hold dicts; meshes of one shape over the same devices are one
        return hash((self.mesh, dumps(self.rules)))

    def ways(self, name: str) -> int:
        """Over how many devices an activation's axis `name` is split."""
        return math.prod(self.mesh.shape[axis] for axis in self.over(name))

    def over(self, name: str) -> tuple[str, ...]:
        """The axes of the mesh, larger than 1, over which an activation's axis `name` is split."""
        return tuple(axis for axis in self.rules.activations.get(name, ()) if self.mesh.shape[axis] > 1)

    @property
    def staged(self) -> tuple[str, ...]:
        """The axes of the mesh, larger than 1, over which layers are split."""
        return tuple(axis for axis in self.rules.params.get("layers", ()) if self.mesh.shape[axis] > 1)

    @property
    def stages(self) -> int:
        """Into how many parts the layers are split."""
        return math.prod(self.mesh.shape[axis] for axis in self.staged)

    @property
    def exchanges_columns(self) -> bool:
        """Whether each device holds other columns of a table and other rows of a batch, so that one all-to-all turns
        the columns found for all rows into whole vectors for its own."""
        split = self.rules.params.get("embed", ())
        return self.over("batch") == split and self.ways("batch") == self.mesh.size

    def batch(self, stacked: bool = False) -> NamedSharding:
        """Rows of a batch over the data-parallel devices; `stacked` batches have an axis in front of the rows."""
        return NamedSharding(self.mesh, PartitionSpec(*(None,) * stacked, self.over("batch")))

    def share(self) -> tuple[int, int]:
        """Which part of a batch's rows this process loads, and of how many: processes whose devices hold the same
        rows (of a mesh whose last axes reach over hosts) load the same part."""
        ways = self.ways("batch")
        found = self.batch().addressable_devices_indices_map((ways,)).values()
        mine = sorted({index[0].indices(ways)[0] for index in found if index})
        first, count = mine[0], len(mine)
        if mine != list(range(first, first + count)) or ways % count or first % count:
            raise ShardingError(f"this process holds parts {mine} of {ways} of a batch, which don't lie side by side")
        return first // count, ways // count

    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    def mine(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Of a whole batch the rows that this process loads."""
        part, parts = self.share()
        return {
            name: value[part * len(value) // parts : (part + 1) * len(value) // parts] for name, value in batch.items()
        }

    def put(self, batch: Mapping[str, Any], stacked: bool = False) -> dict[str, jax.Array]:
        """This host's rows of a batch, or of several `stacked` ones, as arrays of the whole."""
        where, ways = self.batch(stacked), self.ways("batch")
        part, parts = self.share()
        own = next(iter(batch.values())).shape[int(stacked)]
        if own * parts % ways:
            raise ShardingError(
                f"a batch of {own * parts} rows can't be split over {ways} devices; change data.batch or --mesh"
            )
        pieces = self.ways("length")
        for name, value in batch.items():
            if value.ndim == 2 + stacked and value.shape[-1] % pieces:
                raise ShardingError(
                    f"rows of {value.shape[-1]} {name} can't be split {pieces} ways; change data.length or --mesh"
                )

        def whole(value: np.ndarray) -> jax.Array:
            shape = list(value.shape)
            shape[int(stacked)] = own * parts

            def piece(index: Any) -> np.ndarray:
                start, stop, _ = index[int(stacked)].indices(own * parts)
                return value[(*index[: int(stacked)], slice(start - part * own, stop - part * own))]

            return jax.make_array_from_callback(tuple(shape), where, piece)

        return {name: whole(np.asarray(value)) for name, value in batch.items()}


def layout(mesh: str = "", rules: str | ShardingRules | None = None, devices: Sequence[Any] | None = None) -> Layout:
    """`layout("fsdp=4,tensor=2")`. Sizes left out are 1; an empty mesh is one device.

    Of a pipeline it may say more: `layout("stage=4,microbatches=8,repeats=2")`.
    rules: a preset's name or a value; None: `every`, by which the mesh alone says what is split.
    """
    sizes: dict[str, int] = dict.fromkeys(MESH_AXES, 1)
    pipeline: dict[str, int] = {}
    for part in filter(None, mesh.replace(" ", "").split(",")):
        name, _, size = part.partition("=")
        if name not in sizes and name not in PIPELINE:
            raise ConfigError(unknown(name, (*MESH_AXES, *PIPELINE), "the mesh has no axis"))
        if not size.isdigit() or int(size) < 1:
            raise ConfigError(f"mesh axis '{part}' must be of the form {name}=N with N at least 1")
        (sizes if name in sizes else pipeline)[name] = int(size)
    if isinstance(rules, str):
        if rules not in PRESETS:
            raise ConfigError(unknown(rules, PRESETS, "there are no sharding rules"))
        rules = PRESETS[rules]()
    elif rules is None:
        rules = every()
    given, devices = devices, jax.devices() if devices is None else devices
    count = math.prod(sizes.values())
    if count > len(devices):
        raise ConfigError(f"mesh {mesh} needs {count} devices, this machine has {len(devices)}")
    made = Mesh(_arranged(sizes, devices[:count]), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))
    if given is None and mesh:  # else it is one device of the process that asks
        _check_processes(mesh, made)
    rules.check_mesh(made)
    where = Layout(made, rules, **pipeline)
    if pipeline and where.stages == 1:
        raise ShardingError(
            f"{min(pipeline)}={pipeline[min(pipeline)]} is of a pipeline: give the mesh stage=N as well"
        )
    if where.stages % where.repeats and where.repeats % where.stages:
        raise ShardingError(
            f"repeats={where.repeats} must divide stage={where.stages} or be a multiple of it; "
            "otherwise every stage would gather the weights of all layers"
        )
    return where


def _check_processes(text: str, made: Mesh) -> None:
    """Raises ConfigError where a process of the run would have nothing to do: the same one on all of them."""
    idle = set(range(jax.process_count())) - {device.process_index for device in made.devices.flat}
    if idle:
        which = "process" if len(idle) == 1 else "processes"
        raise ConfigError(
            f"mesh {text} uses {made.size} of {jax.device_count()} devices; {which} "
            f"{', '.join(map(str, sorted(idle)))} would have none: use all devices, or start fewer processes"
        )


def _arranged(sizes: Mapping[str, int], devices: Sequence[Any]) -> np.ndarray:
    """Devices by axis: neighbours on the machine's fast network along the last axes, slices along "replica"."""
    shape, slices = tuple(sizes.values()), len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        # an axis may be a part of the machine's: tensor=2 along a side of 4
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    if sizes["replica"] % slices:
        raise ConfigError(f"these devices are of {slices} slices; give the mesh replica={slices} or a multiple of it")
    inside = (sizes["replica"] // slices, *shape[1:])
    across = (slices, *(1,) * len(shape[1:]))
    return mesh_utils.create_hybrid_device_mesh(inside, across, devices, allow_split_physical_axes=True)


_current: ContextVar[Layout | None] = ContextVar("layout", default=None)


@contextlib.contextmanager
def use(where: Layout) -> Iterator[None]:
    """The scope in which `constrain` knows the mesh: entered while a program is traced."""
    token = _current.set(where)
    try:
        yield
    finally:
        _current.reset(token)


def in_scope() -> Layout | None:
    """The layout of the program that is being traced; None outside a `use` scope and on one device."""
    where = _current.get()
    return None if where is None or where.mesh.size == 1 else where


def devices_in_scope() -> int:
    """How many devices the program that is being traced is split over; 1 outside a `use` scope."""
    where = _current.get()
    return 1 if where is None else where.mesh.size


def platform_in_scope() -> str | None:
    """The kind of devices that the program being traced is compiled for; None outside a `use` scope."""
    where = _current.get()
    return None if where is None else where.mesh.devices.flat[0].platform


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Asks the compiler to split an activation by its logical axes; outside a `use` scope it does nothing.

    An axis that the mesh doesn't divide is kept whole: unlike a parameter's, its size is the data's.
    """
    if (where := in_scope()) is None:
        return x
    parts = []
    for name, size in zip(names, x.shape, strict=True):
        over = where.over(name) if name else ()
        parts.append(over if over and size % where.ways(name or "") == 0 else None)
    return jax.lax.with_sharding_constraint(x, NamedSharding(where.mesh, PartitionSpec(*parts)))
