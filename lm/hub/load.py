"""From the Hugging Face layout to a model of ours."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.hub import ours
from lm.hub.errors import HubError
from lm.hub.families import family_of
from lm.hub.fields import Fields
from lm.hub.files import Tensors
from lm.hub.plan import Plan, abstract, placed
from lm.models import EncoderDecoder, Model
from lm.nn import param
from lm.sharding import Layout


@dataclass(frozen=True)
class Pretrained:
    """A model with its weights: `model(tokens [B L])` gives what its output layer says, float32.

    spec: the model as a value; params: a nested dict of float32 arrays, as training and `lm.infer` take them; config:
    the `config.json` it came from, {} for a model of ours. Tokens may be NumPy or JAX.
    """

    spec: Model
    params: param.Params
    config: dict[str, Any]

    def __call__(self, tokens: Any, decoder_tokens: Any = None, **more: Any) -> jax.Array:
        """Logits [B L V] of a decoder, or of an encoder with a masked-LM head. Encoder-decoders take `decoder_tokens`
        too and give [B L_decoder V]. more: what the model's own call takes: positions, segments, types."""
        if isinstance(self.spec, EncoderDecoder) != (decoder_tokens is not None):
            raise HubError(
                "an encoder-decoder needs decoder_tokens"
                if decoder_tokens is None
                else "only an encoder-decoder takes decoder_tokens"
            )
        given = [jnp.asarray(t, jnp.int32) for t in (tokens, decoder_tokens) if t is not None]
        return _forward(self.spec)(self.params, *given, **more)


@functools.lru_cache(maxsize=32)
def _forward(spec: Model) -> Callable[..., jax.Array]:
    graph = abstract(spec)[0]
    return jax.jit(lambda params, *tokens, **more: param.merge(graph, params)(*tokens, **more))


def load(path: str | Path, layout: Layout | None = None) -> Pretrained:
    """The model in a folder with config.json and safetensors, or of that name on the hub where there is a network; or
    in a folder that `lm import` wrote.

    layout: the mesh its parameters are split over, None: the first device. They are read, joined and placed one after
    another, so that besides what is placed there is never more than one of them in memory.
    Raises HubError for a config that isn't understood, and for a tensor that is missing, left over or of another shape.
    """
    where = folder(path)
    if ours.is_ours(where):
        return Pretrained(*ours.read(where, layout))
    fields = read_config(where)
    family = family_of(fields)
    spec, tensors = family.read(fields), Tensors(where)
    fields.finish()
    spec = family.settled(spec, tensors)
    tensors.rename(lambda name: family.renamed(spec, name))
    _, shapes = abstract(spec)
    plan = Plan(family, spec, shapes)
    plan.check(tensors.names() - copied(tensors, family.copies(spec)), family.ignored)
    params = placed(spec, layout, lambda path: made(plan, tensors, path))
    return Pretrained(spec, params, fields.config)


def read_config(folder: Path) -> Fields:
    try:
        return Fields(json.loads((folder / "config.json").read_text()), str(folder / "config.json"))
    except (OSError, json.JSONDecodeError) as error:
        raise HubError(f"{folder / 'config.json'} can't be read: {error}") from None


def copied(tensors: Tensors, copies: Mapping[str, str]) -> set[str]:
    """The copies that are there. Raises HubError for one that isn't what it should be a copy of."""
    there = {name: of for name, of in copies.items() if {name, of} <= tensors.names()}
    for name, of in there.items():
        if not np.array_equal(tensors[name], tensors[of]):
            raise HubError(f"the config says that {name} and {of} are one tensor, and the checkpoint has two different")
    return set(there)


def made(plan: Plan, tensors: Mapping[str, np.ndarray] | Tensors, path: str) -> np.ndarray:
    """One parameter, float32, from its tensors; besides it there is never more than one layer's part of it."""
    whole = np.empty(plan.shapes[path].shape, np.float32)
    for rule, place in plan.makers[path]:
        shapes = [plan.shape(name, rule) for name in rule.ours]
        found = [tensors[name].astype(np.float32) for name in rule.theirs]
        try:
            row = rule.form.load(found, shapes)[place]
        except ValueError as error:
            raise _misshapen(rule, found, shapes[place], str(error)) from None
        if row.shape != shapes[place]:
            raise _misshapen(rule, found, shapes[place], f"they make {row.shape}")
        whole[... if rule.index is None else rule.index] = row
    return whole


def _misshapen(rule: Any, found: list[np.ndarray], shape: tuple[int, ...], why: str) -> HubError:
    return HubError(f"{rule.theirs[0]} {found[0].shape} doesn't fit {rule.ours[0]} {shape}: {why}")


WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
UNWANTED = ["*/*", "consolidated*"]  # other formats in folders of their own; the same weights in Mistral's layout


def is_model(path: Path) -> bool:
    """Whether a folder holds a model that `load` reads. (A run's folder has a config.json of its own kind.)"""
    return ours.is_ours(path) or ((path / "config.json").is_file() and "model_type" in read_config(path).config)


def folder(path: str | Path) -> Path:
    """Where the files of a model are; those of a name on the hub are fetched. Raises HubError where there are none."""
    there = Path(path)
    if there.is_dir():
        return there
    if not isinstance(path, str) or path.count("/") != 1 or path.startswith((".", "/", "~")):
        raise HubError(f"there is no folder {path}")
    try:
        from huggingface_hub import snapshot_download  # type: ignore[import-not-found]
    except ImportError:
        raise HubError(f"there is no folder {path}; to fetch it from the hub: pip install huggingface_hub") from None
    try:
        return Path(snapshot_download(path, allow_patterns=WANTED, ignore_patterns=UNWANTED))
    except Exception as error:
        raise HubError(f"there is no folder {path}, and the hub doesn't give it: {error}") from None
