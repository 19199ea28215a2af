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
from lm.models import Encoder, EncoderDecoder  # noqa: E402
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


def bart(kind: str = "BartForConditionalGeneration", **more: Any) -> Case:
    return kind, {**BART, **more}


CASES: dict[str, Case] = {
    "t5": t5(num_decoder_layers=3),
    "t5-wide-heads": t5(d_kv=6, feed_forward_proj="gated-silu"),
    "t5-unscaled": t5(**V11),
    "t5-exact-gelu": t5(feed_forward_proj="gated-gelu_python"),
    "t5-plain-gelu": t5(feed_forward_proj="gelu"),
    "umt5": ("UMT5ForConditionalGeneration", T5),
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
GENERATED = ("t5", "t5-unscaled", "umt5", "bart", "mbart", "marian-two-tables")


def made(kind: str, fields: dict[str, Any]) -> Any:
    """The reference; queries of T5 drawn smaller, as its own are, since its scores aren't scaled: otherwise softmax is so
    steep that rounding alone moves its logits by 2e-4 from those of float64."""
    model = reference(kind, fields)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("Attention.q.weight"):
                weight *= fields["d_kv"] ** -0.5
    return model


def both_sides() -> tuple[np.ndarray, np.ndarray]:
    """A source, and a target of another length."""
    return some_tokens(), some_tokens(length=17, seed=1)[:, :] % 50


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
