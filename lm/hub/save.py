"""From a model of ours to the Hugging Face layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lm.config import diff, replace
from lm.errors import UserError
from lm.hub import files
from lm.hub.errors import HubError
from lm.hub.families import FAMILIES
from lm.hub.family import Family
from lm.hub.fields import Fields
from lm.hub.load import Pretrained
from lm.hub.plan import Plan, abstract, flattened
from lm.models import Model
from lm.models.stack import Layers, grouped
from lm.nn.block import Block
from lm.nn.moe import MoE


def save(
    model: Pretrained,
    path: str | Path,
    shard: int = files.SHARD,
    beside: Callable[[Path], None] | None = None,
) -> str:
    """Writes config.json and safetensors that transformers loads, in files of at most `shard` bytes; gives the type.

    beside: writes what else belongs into the folder, which appears when all is there.
    Raises HubError where no family of transformers is this model, and for a folder that already has something in it.
    """
    family, config = family_for(model.spec, model.config.get("model_type"))
    config = carried(model.config, config) | config
    with files.new_folder(path) as folder:
        files.write(folder, tensors(family, model), shard)
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        if beside is not None:
            beside(folder)
    return config["model_type"]


CARRIED = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "max_position_embeddings",
    "chunk_size",
    "mamba_chunk_size",
    "id2label",
    "label2id",
)


def carried(source: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """What goes from the file that a model came from into the one that is written; no names of other classes."""
    kept = {name: source[name] for name in CARRIED if name in source}
    if len(kept.get("id2label") or ()) != config.get("num_labels"):
        kept = {name: value for name, value in kept.items() if name not in ("id2label", "label2id")}
    return kept


def tensors(family: Family, model: Pretrained) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs, one after another."""
    flat = flattened(model.params)
    for rule in Plan(family, model.spec, abstract(model.spec)[1]).rules:
        ours = [np.asarray(flat[path] if rule.index is None else flat[path][rule.index]) for path in rule.ours]
        yield from zip(rule.theirs, rule.form.save(ours), strict=True)


def regrouped(spec: Model) -> Model:
    """The same model with its layers grouped as families do, however they are grouped."""
    if isinstance(spec, Layers):
        layers = {} if spec.shared_layers else grouped([untrained(block) for block in spec.each()])
        return replace(spec, {**layers, "vocab_multiple": 1, "embed_std": None})
    parts = [name for name in ("body", "encoder", "decoder") if hasattr(spec, name)]
    return replace(spec, {name: regrouped(getattr(spec, name)) for name in parts})


def untrained(block: Block) -> Block:
    """The block without what only training reads."""
    return replace(block, {"ff.losses": ()}) if isinstance(block.ff, MoE) else block


def family_for(spec: Model, prefer: str | None = None) -> tuple[Family, dict[str, Any]]:
    """The family whose config gives this model back, and that config. Of several the one that has the type `prefer`."""
    reasons = []
    for family in sorted(FAMILIES, key=lambda family: prefer not in family.types):
        try:
            config = family.write(spec)
            back = family.read(Fields(config))
        except UserError as error:  # a config that isn't understood is no home either
            reasons.append((99, f"{family.types[0]}: {error}"))
            continue
        changed = diff(regrouped(spec), back)
        if not changed:
            return family, config
        where, (ours, theirs) = next(iter(changed.items()))
        reasons.append((len(changed), f"{family.types[0]} has {theirs!r} where this model has {where}={ours!r}"))
    nearest = min(reasons, key=lambda found: found[0])[1]
    raise HubError(f"no family of transformers is this model; the nearest: {nearest}")
