"""A model of any origin in our own layout: `model.json`, the value, and its parameters by path as safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lm.config import dumps, loads
from lm.hub import files
from lm.hub.errors import HubError
from lm.hub.plan import abstract, flattened, placed
from lm.models import Model
from lm.sharding import Layout

SPEC, CONFIG = "model.json", "hub.json"


def is_ours(folder: Path) -> bool:
    return (folder / SPEC).is_file()


def write(folder: Path, spec: Model, params: Any, config: dict[str, Any]) -> None:
    """Into an empty folder. config: the `config.json` that it came from, for the way back."""
    files.write(folder, ((path, np.asarray(array)) for path, array in flattened(params).items()))
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder / SPEC).write_text(dumps(spec, indent=2) + "\n")


def read(folder: Path, layout: Layout | None) -> tuple[Model, dict[str, Any], dict[str, Any]]:
    """The value, its parameters and the config."""
    spec = loads((folder / SPEC).read_text())
    if not isinstance(spec, Model):
        raise HubError(f"{folder / SPEC} holds a {type(spec).__name__}, which is no model")
    tensors, (_, shapes) = files.Tensors(folder), abstract(spec)
    if tensors.names() != set(shapes):
        odd = min(tensors.names() ^ set(shapes))
        raise HubError(f"{folder}: the parameter {odd} is in one of {SPEC} and the tensors only")
    params = placed(spec, layout, lambda path: tensors[path])
    return spec, params, json.loads((folder / CONFIG).read_text())
