"""Decoders load transformers' checkpoints: the same logits, gradients and generated tokens, and the way back."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity tests need torch: pip install 'lm[parity]'")
transformers = pytest.importorskip("transformers", reason="parity tests need transformers: pip install 'lm[parity]'")

from lm.hub.plan import abstract  # noqa: E402
from lm.nn.param import merge  # noqa: E402
from tests.parity.checks import (  # noqa: E402
    LENGTH,
    VOCAB,
    assert_close,
    assert_same_gradients,
    assert_same_model,
    assert_same_tokens,
    outputs,
    reference,
    some_tokens,
)

LOGITS = 5e-5  # decoders come closer than the rest
SIZES = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SPECIAL = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
NO_DROPOUT = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
GPT = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": LENGTH, **NO_DROPOUT, **SPECIAL}
LLAMA = {**SIZES, "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64, **SPECIAL}

Case = tuple[str, dict[str, Any]]


def rope(kind: str, theta: float = 500.0, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **more}}


def llama(**more: Any) -> Case:
    return "LlamaForCausalLM", {**LLAMA, **rope("default"), **more}


CASES: dict[str, Case] = {
    "gpt1": ("OpenAIGPTLMHeadModel", GPT),
    "gpt1-untied": ("OpenAIGPTLMHeadModel", {**GPT, "afn": "silu", "tie_word_embeddings": False}),
    "gpt2": ("GPT2LMHeadModel", {**GPT, "n_inner": 40, "layer_norm_epsilon": 1e-2}),
    "gpt2-untied": ("GPT2LMHeadModel", {**GPT, "activation_function": "relu", "tie_word_embeddings": False}),
    "llama-gqa": llama(rms_norm_eps=1e-2),
    "llama-mqa": llama(num_key_value_heads=1, tie_word_embeddings=True),
    "llama-mha-biases": llama(num_key_value_heads=4, attention_bias=True, mlp_bias=True, head_dim=12),
}

WINDOW = {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1, "num_hidden_layers": 3}
GEMMA = {**LLAMA, **rope("default"), "head_dim": 16, "pad_token_id": 0}
GEMMA2 = {
    **GEMMA, "num_hidden_layers": 3, "sliding_window": 8, "query_pre_attn_scalar": 24, "attn_logit_softcapping": 5.0,
    "final_logit_softcapping": 3.0,
}  # fmt: skip
GEMMA3 = {
    **GEMMA, "num_hidden_layers": 7, "sliding_window": 8, "query_pre_attn_scalar": 24,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    },
}  # fmt: skip
FALCON = {**SIZES, **rope("default"), **SPECIAL}
MULTIPLIERS = {
    "embedding_multiplier": 1.7, "logits_scaling": 1.3, "residual_multiplier": 0.6, "attention_multiplier": 0.2,
}  # fmt: skip
LONG = {
    "rope_type": "longrope", "rope_theta": 500.0, "short_factor": [1.0, 1.1, 1.3, 2.0],
    "long_factor": [1.5, 2.0, 4.0, 9.0], "original_max_position_embeddings": 24,
}  # fmt: skip

CASES |= {
    "neox": (
        "GPTNeoXForCausalLM",
        {**SIZES, "intermediate_size": 80, **rope("default", partial_rotary_factor=0.5), **SPECIAL},
    ),
    "neox-sequential": (
        "GPTNeoXForCausalLM",
        {
            **SIZES,
            "intermediate_size": 80,
            **rope("default", partial_rotary_factor=1.0),
            "use_parallel_residual": False,
            "attention_bias": False,
            "tie_word_embeddings": True,
            **SPECIAL,
        },
    ),
    "falcon-mqa": ("FalconForCausalLM", FALCON),
    "falcon-mha-sequential": (
        "FalconForCausalLM",
        {**FALCON, "multi_query": False, "parallel_attn": False, "bias": True, "tie_word_embeddings": False},
    ),
    "falcon-gqa": ("FalconForCausalLM", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "bloom": ("BloomForCausalLM", {"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 2, "n_head": 4, **SPECIAL}),
    "mpt": (
        "MptForCausalLM",
        {
            "vocab_size": VOCAB,
            "d_model": 32,
            "n_layers": 2,
            "n_heads": 4,
            "max_seq_len": LENGTH,
            **SPECIAL,
            "attn_config": {"softmax_scale": 0.3},
        },
    ),
    "mistral-window": ("MistralForCausalLM", {**LLAMA, **rope("default"), "sliding_window": 7}),
    "mistral": ("MistralForCausalLM", {**LLAMA, **rope("default"), "sliding_window": None, "head_dim": 12}),
    "qwen2": ("Qwen2ForCausalLM", {**LLAMA, **rope("default"), "tie_word_embeddings": True}),
    "qwen2-window": ("Qwen2ForCausalLM", {**LLAMA, **rope("default"), **WINDOW}),
    "qwen3": ("Qwen3ForCausalLM", {**LLAMA, **rope("default"), "head_dim": 16}),
    "qwen3-biases": ("Qwen3ForCausalLM", {**LLAMA, **rope("default"), "head_dim": 8, "attention_bias": True}),
    "granite": ("GraniteForCausalLM", {**LLAMA, **rope("default"), **MULTIPLIERS, "tie_word_embeddings": True}),
    "olmo2": ("Olmo2ForCausalLM", {**LLAMA, **rope("default")}),
    "gemma": ("GemmaForCausalLM", {**GEMMA, "num_key_value_heads": 1}),
    "gemma2": ("Gemma2ForCausalLM", GEMMA2),
    "gemma3": ("Gemma3ForCausalLM", GEMMA3),
    "glm": (
        "GlmForCausalLM",
        {**LLAMA, **rope("default", partial_rotary_factor=0.5), "head_dim": 16, "pad_token_id": 0},
    ),
    "glm4": (
        "Glm4ForCausalLM",
        {
            **LLAMA,
            **rope("default", partial_rotary_factor=0.5),
            "head_dim": 8,
            "pad_token_id": 0,
            "attention_bias": False,
        },
    ),
    "phi3": ("Phi3ForCausalLM", {**LLAMA, **rope("default"), "pad_token_id": 0}),
    "phi3-long": ("Phi3ForCausalLM", {**LLAMA, "rope_parameters": LONG, "pad_token_id": 0, "sliding_window": 9}),
}

YARN = {"factor": 4.0, "original_max_position_embeddings": 16}
STRETCHED: dict[str, dict[str, Any]] = {
    "linear": rope("linear", factor=3.0),
    "dynamic": rope("dynamic", factor=3.0) | {"max_position_embeddings": 20},
    "llama3": rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
    ),
    "yarn": rope("yarn", **YARN),
    "yarn-betas": rope("yarn", beta_fast=4.0, beta_slow=0.5, **YARN),
    "yarn-mscale": rope("yarn", mscale=0.7, mscale_all_dim=0.4, truncate=False, **YARN),
    "yarn-attention-factor": rope("yarn", attention_factor=1.7, **YARN),
}


@pytest.mark.parametrize("name", CASES)
def test_loads_and_saves(name: str, tmp_path: Path) -> None:
    model = reference(*CASES[name])
    ours = assert_same_model(model, tmp_path, some_tokens(), within=LOGITS)
    assert_same_tokens(model, ours, some_tokens(2, 9, seed=1))


@pytest.mark.parametrize("name", ["gpt2", "llama-gqa", "llama-mha-biases"])
def test_gradients(name: str, tmp_path: Path) -> None:
    model = reference(*CASES[name])
    assert_same_gradients(model, assert_same_model(model, tmp_path, some_tokens(), within=LOGITS), some_tokens())


@pytest.mark.parametrize("name", STRETCHED)
def test_stretched_rope(name: str, tmp_path: Path) -> None:
    model = reference(*llama(num_hidden_layers=1, head_dim=16, **STRETCHED[name]))
    assert_same_model(model, tmp_path, some_tokens(), within=LOGITS)


def test_packed_documents_are_the_documents_alone(tmp_path: Path) -> None:
    """Two documents in a row give what the reference gives for each of them."""
    model = reference(*llama())
    ours = assert_same_model(model, tmp_path, some_tokens(), within=LOGITS)
    tokens = some_tokens()[:1]
    segments = np.repeat([1, 2], [13, LENGTH - 13])[None]
    packed: Any = merge(abstract(ours.spec)[0], jax.tree.map(jnp.asarray, ours.params))
    logits = packed(jnp.asarray(tokens), segments=jnp.asarray(segments))
    alone = [outputs(model, part) for part in np.split(tokens, [13], axis=1)]
    assert_close(logits, np.concatenate(alone, axis=1), LOGITS, "logits")
