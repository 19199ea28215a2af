"""What is planned: one training step, and the layouts it is asked about without a device at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from lm.config import content_hash, from_dict, lift, to_dict
from lm.models import Model
from lm.objectives import shapes
from lm.sharding import MESH_AXES, Layout, ShardingRules, ddp, layout
from lm.train import Run, Training
from lm.train.step import Program


@dataclass(frozen=True)
class Step:
    """A training step: `rows` of `length` tokens in each batch of the whole machine."""

    model: Model
    training: Training
    rows: int
    length: int

    @classmethod
    def of(cls, run: Run) -> Step:
        return cls(run.model, run.train, run.data.batch, run.data.length)

    def key(self) -> str:
        """Steps of equal key are one program."""
        return content_hash([self.model, lift(self.training)[0]], str(self.rows), str(self.length))

    def batch(self, where: Layout | None = None) -> dict[str, jax.ShapeDtypeStruct]:
        placed: dict[str, Any] = {"sharding": where.batch()} if where else {}
        found = shapes(self.training.objective, self.model, self.rows, self.length)
        return {name: jax.ShapeDtypeStruct(x.shape, x.dtype, **placed) for name, x in found.items()}

    def lowered(self, where: Layout) -> Any:
        """The step's program for a layout, ready to be compiled for its devices, which need not be here."""
        shape, values = lift(self.training)
        program = Program(self.model, shape, where)
        return program.step.lower(program.abstract_state(), self.batch(where), values)

    def to_json(self) -> dict[str, Any]:
        return {
            "model": to_dict(self.model),
            "training": to_dict(self.training),
            "rows": self.rows,
            "length": self.length,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Step:
        return cls(from_dict(data["model"]), from_dict(data["training"]), data["rows"], data["length"])


@dataclass(frozen=True)
class Absent:
    """Stands for a device that isn't here, where only its place in a mesh and its kind matter."""

    id: int
    platform: str = "cpu"
    device_kind: str = "absent"
    process_index: int = 0


def imagined(mesh: str, rules: str | ShardingRules | None, devices: int) -> Layout:
    """The layout that `lm.sharding.layout` makes on so many devices, for asking what is split how."""
    return layout(mesh, rules, [Absent(index) for index in range(devices)])


def one_of(platform: str) -> Layout:
    """One device of a platform: the scope in which shapes are found as its kernels have them."""
    device = np.array([Absent(0, platform)], object).reshape((1,) * len(MESH_AXES))
    return Layout(Mesh(device, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES)), ddp())
