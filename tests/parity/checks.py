"""What is demanded of every family: the reference's logits, its gradients or tokens, and the way back."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from lm import hub
from lm.hub.families import family_of
from lm.hub.fields import Fields
from lm.hub.load import made
from lm.hub.plan import Plan, abstract, flattened
from lm.infer import generate
from lm.models import Model
from lm.nn import param

LOGITS = 1e-4  # absolute; logits are about 6 at most
GRADIENTS = 3e-5  # of the largest absolute value of a tensor, or of 1 where that is smaller
VOCAB, BATCH, LENGTH = 61, 2, 40
quick = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiling is what takes the time


def reference(architecture: str, fields: Mapping[str, Any], seed: int = 0) -> Any:
    """A transformers model with wide random weights: at the usual initialisation a scale or bias that is missing
    doesn't show. Buffers that checkpoints hold (Marian's logit bias, routing corrections) are moved too."""
    kind: Any = getattr(transformers, architecture)
    torch.manual_seed(seed)
    model = kind._from_config(kind.config_class(**fields), attn_implementation="eager").eval()
    saved = set(model.state_dict())
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *((n, b) for n, b in model.named_buffers() if n in saved)]:
            fixed = name.endswith(".embed_positions.weight") and not tensor.requires_grad
            if not tensor.is_floating_point() or fixed:
                continue
            noise = torch.randn_like(tensor)
            if tensor.ndim == 1 or "bias" in name:
                tensor += 0.3 * noise
            else:
                tensor.copy_(1.5 * noise / tensor.shape[-1] ** 0.5)
    return model


def config_of(model: Any) -> dict[str, Any]:
    """The config as it is written to config.json."""
    return json.loads(model.config.to_json_string(use_diff=True)) | {"architectures": [type(model).__name__]}


def spec_of(config: Any) -> Model:
    """The spec of a transformers config."""
    fields = Fields(json.loads(config.to_json_string(use_diff=True)))
    return family_of(fields).read(fields)


def some_tokens(rows: int = BATCH, length: int = LENGTH, seed: int = 0, low: int = 3) -> np.ndarray:
    """Random tokens, none below `low`: small numbers are padding and marks in some families."""
    return np.random.default_rng(seed).integers(low, VOCAB, (rows, length))


def assert_close(ours: Any, theirs: Any, tolerance: float, what: str) -> None:
    theirs = np.asarray(theirs)
    assert np.shape(ours) == theirs.shape
    error = np.max(np.abs(np.asarray(ours) - theirs))
    assert error <= tolerance, f"{what} differs by {error:.1e}, where the largest value is {np.max(np.abs(theirs)):.1e}"


def outputs(model: Any, *tokens: np.ndarray) -> np.ndarray:
    """The reference's logits; tokens for the decoder after those for the encoder."""
    names = ("input_ids", "decoder_input_ids")
    with torch.no_grad():
        found = model(**{n: torch.tensor(t) for n, t in zip(names, tokens, strict=False)}, use_cache=False)
    return (found.logits if "logits" in found else found.last_hidden_state).numpy()


def assert_same_model(
    model: Any, folder: Path, *tokens: np.ndarray, exact: bool = False, within: float = LOGITS
) -> hub.Pretrained:
    """Saved by transformers and loaded here it gives the same logits; saved here, transformers loads it whole, with
    every tensor equal to the bit and the same logits. Gives what was loaded.

    exact: the logits here, in float32 as ever, are held against the reference's in float64, for models where its own
    float32 is off by as much as what is allowed.
    """
    model.save_pretrained(folder / "theirs")
    ours = hub.load(folder / "theirs")
    expected = outputs(model, *tokens)
    truth = outputs(copy.deepcopy(model).double(), *tokens) if exact else expected
    assert_close(ours(*tokens), truth, within, "logits")
    assert np.std(expected) > 0.05
    hub.save(ours, folder / "ours", shard=20_000)
    kind: Any = type(model)
    back, info = kind.from_pretrained(folder / "ours", output_loading_info=True, attn_implementation="eager")
    assert not any(info.values()), info
    before, after = model.state_dict(), back.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name
    assert_close(outputs(back.eval(), *tokens), expected, 1e-6, "logits of the way back")
    assert hub.load(folder / "ours").spec == ours.spec
    return ours


def assert_same_tokens(
    model: Any, ours: hub.Pretrained, prompts: np.ndarray, new: int = 8, cached: bool = True
) -> None:
    """Greedy decoding from a cache gives the reference's tokens, one by one. cached: the reference has one too."""
    with torch.no_grad():
        theirs = model.generate(
            torch.tensor(prompts), attention_mask=torch.ones(prompts.shape, dtype=torch.long), do_sample=False,
            max_new_tokens=new, min_new_tokens=new, use_cache=cached, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
    found: Any = generate(ours.spec, ours.params, prompts.tolist(), new)
    assert found == theirs[:, prompts.shape[1] :].tolist()


def apart(tensors: Iterable[tuple[str, np.ndarray]]) -> Iterator[tuple[str, np.ndarray]]:
    """Experts that transformers joins in memory, by the names that they have in checkpoints."""
    for name, tensor in tensors:
        stem, _, last = name.rpartition(".")
        parts = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}.get(last)
        if parts is None or not stem.endswith(".experts"):
            yield name, tensor
            continue
        for i, expert in enumerate(tensor):
            for part, own in zip(parts, np.split(expert, len(parts)), strict=True):
                yield f"{stem}.{i}.{part}.weight", own


def assert_same_gradients(model: Any, ours: hub.Pretrained, tokens: np.ndarray) -> None:
    """Of the log-likelihood of each next token, for every parameter of a decoder."""
    log_probs = torch.log_softmax(model(torch.tensor(tokens), use_cache=False).logits[:, :-1], -1)
    torch.gather(log_probs, -1, torch.tensor(tokens[:, 1:, None])).sum().neg().backward()
    gradients = {name: np.zeros(buffer.shape, np.float32) for name, buffer in model.named_buffers()}
    gradients |= dict(apart((name, p.grad.numpy()) for name, p in model.named_parameters()))
    graph, shapes = abstract(ours.spec)

    @quick
    def gradient(params: Any) -> Any:
        def loss(params: Any) -> jax.Array:
            logits = param.merge(graph, params)(jnp.asarray(tokens))
            return -jnp.sum(jnp.take_along_axis(jax.nn.log_softmax(logits[:, :-1]), tokens[:, 1:, None], axis=-1))

        return jax.grad(loss)(params)

    plan = Plan(family_of(Fields(ours.config)), ours.spec, shapes)  # the map of weights is linear: it maps gradients
    for path, found in flattened(gradient(ours.params)).items():
        wanted = made(plan, gradients, path)
        assert_close(found, wanted, GRADIENTS * max(1.0, np.max(np.abs(wanted))), f"gradient of {path}")
