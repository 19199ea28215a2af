"""Encoder-decoders load transformers' checkpoints: the same logits and generated tokens, and the way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity tests need torch: pip install 'lm[parity]'")
transformers = pytest.importorskip("transformers", reason="parity tests need transformers: pip install 'lm[parity]'")

from safetensors.numpy import load_file, save_file  # noqa: E402

from lm import hub  # noqa: E402
from lm.config import replace  # noqa: E402
from lm.hub.families import family_of  # noqa: E402
from lm.hub.fields import Fields  # noqa: E402
from lm.hub.plan import flattened, nested  # noqa: E402
from lm.hub.save import regrouped  # noqa: E402
from lm.infer import seq2seq  # noqa: E402
from lm.models import Encoder, EncoderDecoder  # noqa: E402
from lm.models.presets import preset  # noqa: E402
from tests.parity.checks import (  # noqa: E402
    LENGTH,
    LOGITS,
    VOCAB,
    assert_close,
    assert_same_model,
    outputs,
    reference,
    some_tokens,
)

T5 = {
    "vocab_size": VOCAB, "d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 4,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20, "layer_norm_epsilon": 1e-2,
    "decoder_start_token_id": 0,
}  # fmt: skip
V11 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
BART = {
    "vocab_size": VOCAB, "d_model": 32, "max_position_embeddings": LENGTH, "encoder_layers": 2, "decoder_layers": 3,
    "encoder_attention_heads": 4, "decoder_attention_heads": 2, "encoder_ffn_dim": 40, "decoder_ffn_dim": 24,
    "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip
SCALED = {"scale_embedding": True}

Case = tuple[str, dict[str, Any]]


def t5(**more: Any) -> Case:
    return "T5ForConditionalGeneration", {**T5, **more}


def switch(**more: Any) -> Case:
    """Of four layers in the encoder, the second and the fourth are sparse."""
    sizes = {"num_layers": 4, "num_sparse_encoder_layers": 2, "num_sparse_decoder_layers": 1, "num_decoder_layers": 2}
    return "SwitchTransformersForConditionalGeneration", {**T5, **sizes, "num_experts": 4, **more}


def bart(kind: str = "BartForConditionalGeneration", **more: Any) -> Case:
    return kind, {**BART, **more}


CASES: dict[str, Case] = {
    "t5": t5(num_decoder_layers=3),
    "t5-wide-heads": t5(d_kv=6, feed_forward_proj="gated-silu"),
    "t5-unscaled": t5(**V11),
    "t5-exact-gelu": t5(feed_forward_proj="gated-gelu_python"),
    "t5-plain-gelu": t5(feed_forward_proj="gelu"),
    "umt5": ("UMT5ForConditionalGeneration", T5),
    "switch": switch(),
    "switch-drops": switch(expert_capacity=5, router_bias=True, num_decoder_layers=3),
    "switch-all-sparse": switch(encoder_sparse_step=1, decoder_sparse_step=0),
    "bart": bart(),
    "bart-scaled": bart(activation_function="relu", **SCALED),
    "mbart": bart("MBartForConditionalGeneration", **SCALED),
    "marian": bart("MarianMTModel", activation_function="swish", **SCALED),
    "marian-two-tables": bart("MarianMTModel", share_encoder_decoder_embeddings=False, decoder_vocab_size=VOCAB - 7),
    "marian-three-tables": bart(
        "MarianMTModel",
        share_encoder_decoder_embeddings=False,
        decoder_vocab_size=VOCAB + 2,
        tie_word_embeddings=False,
    ),
}
GENERATED = ("t5-plain-gelu", "t5-unscaled", "umt5", "switch", "bart", "mbart", "marian")


def made(kind: str, fields: dict[str, Any], seed: int = 0) -> Any:
    """The reference; queries of T5 drawn smaller, as its own are, since its scores aren't scaled: otherwise softmax is
    so steep that rounding alone moves its logits by 2e-4 from those of float64. Rows before BART's first position are
    0, as they are in what we save: nothing reads them."""
    model = reference(kind, fields, seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("Attention.q.weight"):
                weight *= fields["d_kv"] ** -0.5
            if name.endswith(".embed_positions.weight") and weight.requires_grad:
                weight[:2] = 0
    return model


def both_sides() -> tuple[np.ndarray, np.ndarray]:
    """A source, and a target of another length."""
    return some_tokens(), some_tokens(length=17, seed=1) % 50


@pytest.mark.parametrize("name", CASES)
def test_loads_and_saves(name: str, tmp_path: Path) -> None:
    assert_same_model(made(*CASES[name]), tmp_path, *both_sides())


def test_pegasus(tmp_path: Path) -> None:
    """Its checkpoints hold the fixed positions too; ours needn't."""
    model = reference(*bart("PegasusForConditionalGeneration", **SCALED))
    expected = outputs(model, *both_sides())
    model.save_pretrained(tmp_path / "theirs")
    ours = hub.load(tmp_path / "theirs")
    assert_close(ours(*both_sides()), expected, LOGITS, "logits")
    hub.save(ours, tmp_path / "ours")
    back, info = type(model).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert {name.rpartition(".")[0] for name in info["missing_keys"]} == {
        f"model.{side}.embed_positions" for side in ("encoder", "decoder")
    }
    assert_close(outputs(back.eval(), *both_sides()), expected, 1e-5, "logits of the way back")


def untied(model: Any) -> Any:
    """With a head of its own, as T5 v1.1 has it, which transformers only makes of a checkpoint."""
    noise = torch.randn(model.lm_head.weight.shape) / model.config.d_model**0.5
    model.lm_head.weight = torch.nn.Parameter(1.5 * noise)
    model.all_tied_weights_keys.pop("lm_head.weight")
    return model


@pytest.mark.parametrize("kind", ["T5ForConditionalGeneration", "MT5ForConditionalGeneration"])
def test_a_head_of_its_own_is_told_by_its_tensor(kind: str, tmp_path: Path) -> None:
    """transformers 5 writes tie_word_embeddings=true, older files and ours false."""
    model = untied(made(kind, {**T5, **V11}))
    ours = assert_same_model(model, tmp_path, *both_sides())
    assert isinstance(ours.spec, EncoderDecoder) and not ours.spec.decoder.tied and ours.spec.decoder.logit_scale == 1
    written = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert ours.config["tie_word_embeddings"] and not written["tie_word_embeddings"]


def test_encoders_alone(tmp_path: Path) -> None:
    ours = assert_same_model(made("T5EncoderModel", {**T5, **V11}), tmp_path, some_tokens())
    assert isinstance(ours.spec, Encoder)


def test_bart_without_a_head_is_bart_with_a_tied_one_and_no_bias(tmp_path: Path) -> None:
    """What facebook/bart-base is, with other names of its tensors."""
    fields = bart()[1]
    made("BartModel", fields).save_pretrained(tmp_path / "theirs")
    ours = hub.load(tmp_path / "theirs")
    whole = transformers.BartForConditionalGeneration.from_pretrained(tmp_path / "theirs").eval()
    assert_close(ours(*both_sides()), outputs(whole, *both_sides()), LOGITS, "logits")
    hub.save(ours, tmp_path / "ours")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    assert before.keys() == after.keys() and all(np.array_equal(before[name], after[name]) for name in before)


def assert_same_target(model: Any, ours: hub.Pretrained) -> None:
    """Greedy decoding from a cache, token by token."""
    sources, start, new = some_tokens(3, 11, seed=2), 2, 12
    for name in ("eos_token_id", "forced_eos_token_id", "forced_bos_token_id"):
        setattr(model.generation_config, name, None)
    with torch.no_grad():
        theirs = model.generate(
            torch.tensor(sources), attention_mask=torch.ones(sources.shape, dtype=torch.long), do_sample=False,
            num_beams=1, decoder_start_token_id=start, max_new_tokens=new, min_new_tokens=new, pad_token_id=0,
        )  # fmt: skip
    found = seq2seq.generate(ours.spec, ours.params, sources.tolist(), new, start)  # type: ignore[arg-type]
    assert found == theirs[:, 1:].tolist()
    assert len({token for row in found for token in row}) > 3


@pytest.mark.parametrize("name", GENERATED)
def test_generates_the_same_tokens(name: str, tmp_path: Path) -> None:
    """The decoder is changed so that it doesn't say one token for ever, as the one that a tied table has just read, or
    the one that biases and the mean of wide feed-forward layers favour."""
    model = made(*CASES[name], seed=3)
    with torch.no_grad():
        for where, weight in model.get_decoder().named_parameters():
            if "norm" in where and where.endswith("weight"):
                weight *= torch.randn_like(weight).sign()
            if where.endswith(("out_proj.weight", "fc2.weight")):
                weight *= 0.3
            if where.endswith("bias"):
                weight *= 0
    model.save_pretrained(tmp_path)
    assert_same_target(model, hub.load(tmp_path))


LARGE = {"d_model": 1024, "num_layers": 24, "num_heads": 16}
PRESET_CONFIGS: dict[str, Case] = {
    "t5-small": ("T5", {}),
    "t5-base": ("T5", {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}),
    "t5-large": ("T5", {**LARGE, "d_ff": 4096}),
    "t5-3b": ("T5", {**LARGE, "num_heads": 32, "d_kv": 128, "d_ff": 16384}),
    "t5-11b": ("T5", {**LARGE, "num_heads": 128, "d_kv": 128, "d_ff": 65536}),
    "flan-t5-small": ("T5", {**V11, "d_ff": 1024, "num_layers": 8, "num_heads": 6}),
    "flan-t5-base": ("T5", {**V11, "d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12}),
    "flan-t5-large": ("T5", {**V11, **LARGE, "d_ff": 2816}),
    "t5-v1_1-xl": ("T5", {**V11, **LARGE, "d_model": 2048, "num_heads": 32, "d_ff": 5120}),
    "t5-v1_1-xxl": ("T5", {**V11, **LARGE, "d_model": 4096, "num_heads": 64, "d_ff": 10240}),
    "bart-base": (
        "Bart",
        {
            "d_model": 768,
            **{f"{side}_{what}": size
               for side in ("encoder", "decoder")
               for what, size in {"layers": 6, "attention_heads": 12, "ffn_dim": 3072}.items()},
        },
    ),
    "bart-large": ("Bart", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", PRESET_CONFIGS)
def test_presets_are_models_of_transformers(name: str) -> None:
    """The model that its config is read as, with as many parameters as transformers makes of it."""
    kind, sizes = PRESET_CONFIGS[name]
    config = getattr(transformers, f"{kind}Config")(**sizes)
    written = json.loads(config.to_json_string()) | {"architectures": [f"{kind}Model"]}
    own_head = sizes.get("tie_word_embeddings") is False
    fields = Fields({**written, "tie_word_embeddings": not own_head})  # transformers 5 writes true either way
    assert family_of(fields).read(fields) == regrouped(preset(name))
    with torch.device("meta"):
        model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    counted = sum(p.numel() for p in model.parameters()) + (config.vocab_size * config.d_model if own_head else 0)
    unread = 2 * 2 * config.d_model if kind == "Bart" else 0  # rows before the first position
    assert preset(name).cost(1).params + unread == counted


# Fields of config.json files on the hub, legacy ones too
PUBLISHED: dict[str, dict[str, Any]] = {
    "google-t5/t5-small": {
        "architectures": ["T5ForConditionalGeneration"], "d_ff": 2048, "d_kv": 64, "d_model": 512,
        "decoder_start_token_id": 0, "dropout_rate": 0.1, "eos_token_id": 1, "initializer_factor": 1.0,
        "is_encoder_decoder": True, "layer_norm_epsilon": 1e-06, "model_type": "t5", "n_positions": 512,
        "num_heads": 8, "num_layers": 6, "output_past": True, "pad_token_id": 0,
        "relative_attention_num_buckets": 32, "task_specific_params": {"summarization": {"num_beams": 4}},
        "vocab_size": 32128,
    },
    "google/flan-t5-small": {
        "architectures": ["T5ForConditionalGeneration"], "d_ff": 1024, "d_kv": 64, "d_model": 512,
        "decoder_start_token_id": 0, "dropout_rate": 0.1, "eos_token_id": 1, "feed_forward_proj": "gated-gelu",
        "initializer_factor": 1.0, "is_encoder_decoder": True, "layer_norm_epsilon": 1e-06, "model_type": "t5",
        "n_positions": 512, "num_decoder_layers": 8, "num_heads": 6, "num_layers": 8, "output_past": True,
        "pad_token_id": 0, "relative_attention_max_distance": 128, "relative_attention_num_buckets": 32,
        "tie_word_embeddings": False, "transformers_version": "4.23.1", "use_cache": True, "vocab_size": 32128,
    },
    "google/mt5-small": {
        "architectures": ["MT5ForConditionalGeneration"], "d_ff": 1024, "d_kv": 64, "d_model": 512,
        "decoder_start_token_id": 0, "dropout_rate": 0.1, "eos_token_id": 1, "feed_forward_proj": "gated-gelu",
        "initializer_factor": 1.0, "is_encoder_decoder": True, "layer_norm_epsilon": 1e-06, "model_type": "mt5",
        "num_decoder_layers": 8, "num_heads": 6, "num_layers": 8, "pad_token_id": 0,
        "relative_attention_num_buckets": 32, "tie_word_embeddings": False, "tokenizer_class": "T5Tokenizer",
        "transformers_version": "4.10.0.dev0", "use_cache": True, "vocab_size": 250112,
    },
    "google/switch-base-8": {
        "add_router_probs": False, "architectures": ["SwitchTransformersForConditionalGeneration"],
        "batch_prioritized_routing": False, "d_ff": 3072, "d_kv": 64, "d_model": 768, "decoder_sparse_step": 2,
        "decoder_start_token_id": 0, "dense_act_fn": "relu", "dropout_rate": 0.1, "encoder_sparse_step": 2,
        "eos_token_id": 1, "expert_capacity": 64, "feed_forward_proj": "relu", "initializer_factor": 1.0,
        "is_encoder_decoder": True, "is_gated_act": False, "layer_norm_epsilon": 1e-06,
        "model_type": "switch_transformers", "n_positions": 512, "num_decoder_layers": 12, "num_experts": 8,
        "num_heads": 12, "num_layers": 12, "num_selected_experts": 1, "num_sparse_decoder_layers": 6,
        "num_sparse_encoder_layers": 6, "output_past": True, "pad_token_id": 0,
        "relative_attention_max_distance": 128, "relative_attention_num_buckets": 32, "router_aux_loss_coef": 0.001,
        "router_bias": False, "router_dtype": "float32", "router_ignore_padding_tokens": False,
        "router_jitter_noise": 0.01, "router_type": "tokens_masked", "router_z_loss_coef": 0.001,
        "use_cache": True, "vocab_size": 32128,
    },
    "facebook/bart-base": {
        "_name_or_path": "bart-base", "activation_dropout": 0.1, "activation_function": "gelu",
        "add_bias_logits": False, "add_final_layer_norm": False, "architectures": ["BartModel"],
        "attention_dropout": 0.1, "bos_token_id": 0, "classif_dropout": 0.1, "classifier_dropout": 0.0,
        "d_model": 768, "decoder_attention_heads": 12, "decoder_ffn_dim": 3072, "decoder_layerdrop": 0.0,
        "decoder_layers": 6, "decoder_start_token_id": 2, "dropout": 0.1, "early_stopping": True,
        "encoder_attention_heads": 12, "encoder_ffn_dim": 3072, "encoder_layerdrop": 0.0, "encoder_layers": 6,
        "eos_token_id": 2, "forced_bos_token_id": 0, "forced_eos_token_id": 2, "gradient_checkpointing": False,
        "id2label": {"0": "LABEL_0"}, "init_std": 0.02, "is_encoder_decoder": True, "label2id": {"LABEL_0": 0},
        "max_position_embeddings": 1024, "model_type": "bart", "no_repeat_ngram_size": 3, "normalize_before": False,
        "normalize_embedding": True, "num_beams": 4, "num_hidden_layers": 6, "pad_token_id": 1,
        "scale_embedding": False, "task_specific_params": {}, "torch_dtype": "float32",
        "transformers_version": "4.12.0.dev0", "use_cache": True, "vocab_size": 50265,
    },
    "Helsinki-NLP/opus-mt-en-de": {
        "_num_labels": 3, "activation_dropout": 0.0, "activation_function": "swish", "add_bias_logits": False,
        "add_final_layer_norm": False, "architectures": ["MarianMTModel"], "attention_dropout": 0.0,
        "bad_words_ids": [[58100]], "bos_token_id": 0, "classif_dropout": 0.0, "d_model": 512,
        "decoder_attention_heads": 8, "decoder_ffn_dim": 2048, "decoder_layerdrop": 0.0, "decoder_layers": 6,
        "decoder_start_token_id": 58100, "decoder_vocab_size": 58101, "dropout": 0.1, "encoder_attention_heads": 8,
        "encoder_ffn_dim": 2048, "encoder_layerdrop": 0.0, "encoder_layers": 6, "eos_token_id": 0,
        "id2label": {"0": "LABEL_0"}, "init_std": 0.02, "is_encoder_decoder": True, "label2id": {"LABEL_0": 0},
        "max_length": 512, "max_position_embeddings": 512, "model_type": "marian", "normalize_before": False,
        "normalize_embedding": False, "num_beams": 6, "num_hidden_layers": 6, "pad_token_id": 58100,
        "scale_embedding": True, "share_encoder_decoder_embeddings": True, "static_position_embeddings": True,
        "vocab_size": 58101,
    },
    "google/pegasus-large": {
        "activation_dropout": 0.1, "activation_function": "relu", "add_bias_logits": False,
        "add_final_layer_norm": True, "architectures": ["PegasusForConditionalGeneration"], "d_model": 1024,
        "decoder_layers": 16, "encoder_layers": 16, "extra_pos_embeddings": 1, "length_penalty": 0.8,
        "force_bos_token_to_be_generated": False, "max_position_embeddings": 1024, "model_type": "pegasus",
        "normalize_before": True, "normalize_embedding": False, "num_beams": 8, "num_hidden_layers": 16,
        "scale_embedding": True, "static_position_embeddings": True, "vocab_size": 96103,
    },
}  # fmt: skip
PARAMETERS = {  # of the models as transformers counts them, without fixed positions
    "google-t5/t5-small": 60_506_624,
    "google/flan-t5-small": 76_961_152,
    "facebook/bart-base": 139_420_416,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_are_read_and_give_themselves_back(name: str) -> None:
    fields = Fields(PUBLISHED[name], name)
    family = family_of(fields)
    spec: Any = family.read(fields)
    fields.finish()
    assert family.read(Fields(family.write(spec))) == spec
    unread = 2 * 2 * 768 if "bart" in name else 0  # rows before the first position
    assert name not in PARAMETERS or spec.cost(1).params + unread == PARAMETERS[name]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"normalize_before": True}, "normalize_before=True isn't supported for bart"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False isn't supported where both sides share a table"),
        ({"architectures": ["BartForSequenceClassification"]}, "BartForSequenceClassification isn't supported"),
        ({"activation_function": "mish"}, "activation_function='mish' isn't supported"),
        ({"novel": 3}, "novel=3 isn't known for bart"),
    ],
)
def test_what_would_change_the_result_is_an_error(changed: dict[str, Any], message: str) -> None:
    fields = Fields({**PUBLISHED["facebook/bart-base"], **changed})
    with pytest.raises(hub.HubError, match=message):
        family_of(fields).read(fields)
        fields.finish()


def with_tensors(folder: Path, more: dict[str, np.ndarray]) -> None:
    """Adds tensors to a checkpoint, as older ones hold them."""
    file = folder / "model.safetensors"
    save_file({**load_file(file), **more}, file, metadata={"format": "pt"})


def test_older_checkpoints_hold_tied_tables_and_a_table_that_nothing_reads(tmp_path: Path) -> None:
    model = made(*CASES["t5"])
    model.save_pretrained(tmp_path)
    shared = load_file(tmp_path / "model.safetensors")["shared.weight"]
    tables = [f"{side}.embed_tokens.weight" for side in ("encoder", "decoder")]
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    with_tensors(tmp_path, {**dict.fromkeys([*tables, "lm_head.weight"], shared), unused: np.ones((8, 4), np.float32)})
    ours = hub.load(tmp_path)
    assert isinstance(ours.spec, EncoderDecoder) and ours.spec.decoder.tied
    with_tensors(tmp_path, {tables[0]: shared + 1})
    with pytest.raises(hub.HubError, match=r"encoder.embed_tokens.weight and shared.weight are one tensor"):
        hub.load(tmp_path)


def test_layers_in_other_groups_are_saved_where_they_share_their_biases(tmp_path: Path) -> None:
    """Stacks of ours have a table each; transformers has one for all layers."""
    model = made(*CASES["t5"])
    model.save_pretrained(tmp_path / "theirs")
    ours = hub.load(tmp_path / "theirs")
    assert isinstance(ours.spec, EncoderDecoder)
    block = ours.spec.encoder.block
    apart = replace(ours.spec, {"encoder.block": (block, block)})
    tables = {name: np.array(x) for name, x in flattened(ours.params).items()}
    moved = {}
    for name, array in tables.items():
        if name.startswith("encoder.blocks.0."):
            for i in range(2):
                layer = array if len(array) == 1 else array[i : i + 1]
                moved[name.replace("blocks.0", f"blocks.{i}")] = layer
        else:
            moved[name] = array
    hub.save(hub.Pretrained(apart, nested(moved), {}), tmp_path / "ours")
    assert_close(hub.load(tmp_path / "ours")(*both_sides()), ours(*both_sides()), 1e-6, "logits")
    moved["encoder.blocks.1.mixer.position.table"] = moved["encoder.blocks.1.mixer.position.table"] + 1
    with pytest.raises(hub.HubError, match="one for them all"):
        hub.save(hub.Pretrained(apart, nested(moved), {}), tmp_path / "different")
