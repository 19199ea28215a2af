"""What a checkpoint's files may and may not hold. That the numbers are the reference's is in tests/parity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lm import hub, sharding
from lm.config import replace
from lm.hub import files, ours
from lm.hub.save import family_for
from lm.models.presets import llama_style
from lm.nn import Block, mha
from tests.tiny import made

SPEC = llama_style(16, 3, heads=4, kv_heads=2, hidden=24, vocab=40, tied=False)
TOKENS = np.random.default_rng(0).integers(0, 40, (2, 9))


def model() -> hub.Pretrained:
    _, params = made(SPEC)
    return hub.Pretrained(SPEC, params, {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert hub.save(model(), tmp_path / "model") == "llama"
    return tmp_path / "model"


def edit(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


def edit_tensors(folder: Path, change: Any) -> None:
    tensors = load_file(folder / files.ONE)
    change(tensors)
    save_file(tensors, folder / files.ONE)


def test_what_is_saved_is_loaded(folder: Path) -> None:
    found = hub.load(folder)
    assert found.spec == SPEC and found.config["model_type"] == "llama"
    for path, array in jax.tree_util.tree_leaves_with_path(model().params):
        np.testing.assert_array_equal(array, dict(jax.tree_util.tree_leaves_with_path(found.params))[path])
    logits = found(TOKENS)
    assert logits.shape == (2, 9, 40) and logits.dtype == jnp.float32
    np.testing.assert_array_equal(logits, found(jnp.asarray(TOKENS)))
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_files_of_a_size(tmp_path: Path) -> None:
    hub.save(model(), tmp_path / "model", shard=4096)
    named = json.loads((tmp_path / "model" / files.INDEX).read_text())
    parts = sorted(set(named["weight_map"].values()))
    assert len(parts) > 3 and parts[0] == f"model-00001-of-{len(parts):05d}.safetensors"
    assert named["metadata"]["total_size"] == 4 * SPEC.cost(1).params
    np.testing.assert_array_equal(hub.load(tmp_path / "model")(TOKENS), model()(TOKENS))
    (tmp_path / "model" / parts[1]).unlink()
    with pytest.raises(hub.HubError, match=f"{parts[1]} can't be read"):
        hub.load(tmp_path / "model")


def test_half_precision_is_read_as_float32(folder: Path) -> None:
    import ml_dtypes

    expected = jax.tree.map(lambda p: np.asarray(p).astype(ml_dtypes.bfloat16).astype(np.float32), model().params)
    edit_tensors(folder, lambda t: t.update({n: a.astype(ml_dtypes.bfloat16) for n, a in t.items()}))
    found = hub.load(folder).params
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_onto_a_mesh(folder: Path) -> None:
    where = sharding.layout("fsdp=2,tensor=2")
    found = hub.load(folder, where)
    query = found.params["blocks"]["0"]["mixer"]["query"]["weight"]
    assert len(query.sharding.device_set) == 4
    assert query.addressable_shards[0].data.size == query.size // 4
    np.testing.assert_allclose(found(TOKENS), model()(TOKENS), atol=1e-4)


def test_never_more_than_one_parameter_on_the_host(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tensor is read once, right before it is placed, and no earlier one is still held."""
    import weakref

    held: list[Any] = []
    read = files.Tensors.__getitem__

    def watched(self: files.Tensors, name: str) -> np.ndarray:
        array = read(self, name)
        held.append((name, weakref.ref(array)))
        return array

    place, alive = jax.device_put, []

    def placed(x: Any, *more: Any) -> Any:
        alive.append(sum(array() is not None for _, array in held))
        return place(np.array(x), *more)

    monkeypatch.setattr(files.Tensors, "__getitem__", watched)
    monkeypatch.setattr(jax, "device_put", placed)
    hub.load(folder)
    names = [name for name, _ in held]
    assert sorted(names) == sorted(load_file(folder / files.ONE))
    assert max(alive) <= SPEC.layers


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("model.norm.weight"), "lacks model.norm.weight"),
        (lambda t: t.update({"model.extra.weight": np.ones(3)}), "nothing of this model reads: model.extra.weight"),
        (
            lambda t: t.update({"model.norm.weight": np.ones(15, np.float32)}),
            r"model.norm.weight \(15,\) doesn't fit norm.scale \(16,\)",
        ),
        (
            lambda t: t.update({"model.layers.1.self_attn.k_proj.weight": np.ones((7, 16), np.float32)}),
            r"model.layers.1.self_attn.k_proj.weight \(7, 16\) doesn't fit blocks.0.mixer.key.weight \(16, 2, 4\)",
        ),
    ],
    ids=["missing", "left over", "vector", "matrix"],
)
def test_tensors_that_do_not_fit(folder: Path, change: Any, said: str) -> None:
    edit_tensors(folder, change)
    with pytest.raises(hub.HubError, match=said):
        hub.load(folder)


def test_buffers_hold_nothing(folder: Path) -> None:
    edit_tensors(folder, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2)}))
    assert hub.load(folder).spec == SPEC


def test_a_tied_table_that_is_another(folder: Path) -> None:
    edit(folder, tie_word_embeddings=True)
    with pytest.raises(
        hub.HubError, match=r"lm_head.weight and model.embed_tokens.weight are one tensor.*two different"
    ):
        hub.load(folder)
    edit_tensors(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"]}))
    assert hub.load(folder).spec == replace(SPEC, {"tied": True})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"attention_sink": 4}, r"attention_sink=4 isn't known for llama; it may change the result"),
        ({"hidden_act": "mish"}, r"hidden_act='mish' isn't supported, only"),
        ({"model_type": "lama"}, r"there is no model type 'lama'.*llama"),
        ({"rope_parameters": {"rope_type": "spiral"}}, r"rope_type='spiral' isn't supported"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2, "twist": 3}}, r"twist=3 of rope_type='linear'"),
        ({"quantization_config": {"bits": 4}}, r"quantization_config=.*isn't known"),
    ],
    ids=["field", "activation", "type", "rope", "of rope", "quantised"],
)
def test_what_is_not_understood_is_no_model(folder: Path, fields: dict[str, Any], said: str) -> None:
    edit(folder, **fields)
    with pytest.raises(hub.HubError, match=said):
        hub.load(folder)


def test_what_does_not_matter_is_read_over(folder: Path) -> None:
    edit(folder, torch_dtype="bfloat16", use_cache=False, attention_dropout=0.1, attention_sink=None)
    assert hub.load(folder).spec == SPEC


def test_pickles_and_nothing(tmp_path: Path) -> None:
    with pytest.raises(hub.HubError, match="there is no folder"):
        hub.load(tmp_path / "absent")
    with pytest.raises(hub.HubError, match=r"config.json can't be read"):
        hub.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(hub.HubError, match=r"neither model\.safetensors nor"):
        hub.load(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(hub.HubError, match="pickled files can run code"):
        hub.load(tmp_path)


def test_a_model_that_transformers_lacks(tmp_path: Path) -> None:
    odd = replace(SPEC, {"block": Block(mixer=mha(4, position=None), ff=None)})
    with pytest.raises(hub.HubError, match="no family of transformers is this model; the nearest"):
        hub.save(hub.Pretrained(odd, {}, {}), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_all_or_nothing(tmp_path: Path) -> None:
    """What is written beside the model belongs to it: where that fails there is no folder."""

    def fails(folder: Path) -> None:
        assert (folder / files.ONE).is_file()
        raise hub.HubError("no tokenizer")

    with pytest.raises(hub.HubError, match="no tokenizer"):
        hub.save(model(), tmp_path / "model", beside=fails)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_has_something(folder: Path) -> None:
    with pytest.raises(hub.HubError, match="isn't empty"):
        hub.save(model(), folder)


def test_layers_are_grouped_as_they_come(tmp_path: Path) -> None:
    """A pattern of equal blocks is the same model as one block."""
    same = replace(SPEC, {"block": (SPEC.block, SPEC.block)})
    _, params = made(same)
    hub.save(hub.Pretrained(same, params, {}), tmp_path / "model")
    found = hub.load(tmp_path / "model")
    assert found.spec == SPEC
    np.testing.assert_allclose(found(TOKENS), hub.Pretrained(same, params, {})(TOKENS), atol=1e-5)


def test_our_own_layout(tmp_path: Path) -> None:
    with hub.new_folder(tmp_path / "ours") as place:
        ours.write(place, SPEC, model().params, {"model_type": "llama"})
    found = hub.load(tmp_path / "ours")
    assert found.spec == SPEC and found.config == {"model_type": "llama"}
    jax.tree.map(np.testing.assert_array_equal, found.params, model().params)
    tensors = load_file(tmp_path / "ours" / files.ONE)
    save_file({n: a for n, a in tensors.items() if n != "norm.scale"}, tmp_path / "ours" / files.ONE)
    with pytest.raises(hub.HubError, match=r"the parameter norm.scale is in one of"):
        hub.load(tmp_path / "ours")


def test_a_call_that_makes_no_sense() -> None:
    with pytest.raises(hub.HubError, match="only an encoder-decoder takes decoder_tokens"):
        model()(TOKENS, TOKENS)


def test_a_part_that_a_family_s_config_can_not_say() -> None:
    """transformers' Llama and Qwen2 turn whole heads whatever their configs say; GLM doesn't."""
    partly = replace(SPEC, {"block.mixer.position.fraction": 0.5})
    assert family_for(partly)[0].types == ("glm",)
    assert family_for(partly, "phi3")[0].types == ("phi3",)
    biased = replace(partly, {"block.mixer.bias": True})
    assert family_for(biased)[0].types == family_for(biased, "phi3")[0].types == ("glm",)
    with pytest.raises(hub.HubError, match="no family of transformers is this model"):
        family_for(replace(biased, {"block.mixer.output_bias": True}))
    wide = replace(SPEC, {"block.ff.bias": True})
    assert family_for(wide)[0].types == ("llama",)
    with pytest.raises(hub.HubError, match="no family of transformers is this model"):
        family_for(replace(wide, {"block.mixer.mask.window": 4}))
