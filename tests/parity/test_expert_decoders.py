"""Decoders with experts load transformers' checkpoints: the same logits and generated tokens, and the way back."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="parity tests need torch: pip install 'lm[parity]'")
transformers = pytest.importorskip("transformers", reason="parity tests need transformers: pip install 'lm[parity]'")

from lm import hub  # noqa: E402
from lm.config import replace  # noqa: E402
from lm.nn.routing_losses import LoadBalance  # noqa: E402
from tests.parity.checks import (  # noqa: E402
    VOCAB,
    assert_same_gradients,
    assert_same_model,
    assert_same_tokens,
    reference,
    some_tokens,
)

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 40, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
}  # fmt: skip
QWEN = {**SIZES, "moe_intermediate_size": 24, "num_experts": 6, "num_experts_per_tok": 3}
MULTIPLIERS = {
    "embedding_multiplier": 1.7, "logits_scaling": 1.3, "residual_multiplier": 0.6, "attention_multiplier": 0.2,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16, "mscale": 0.8,
    "mscale_all_dim": 0.8,
}  # fmt: skip
DEEPSEEK = {
    **SIZES, "num_key_value_heads": 4, "num_hidden_layers": 3, "moe_intermediate_size": 24, "n_routed_experts": 8,
    "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1, "kv_lora_rank": 12,
    "q_lora_rank": 20, "qk_nope_head_dim": 8, "qk_rope_head_dim": 6, "v_head_dim": 10, "num_mtp_layers": 0,
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("MixtralForCausalLM", {**SIZES, "num_local_experts": 4}),
    "mixtral-window": ("MixtralForCausalLM", {**SIZES, "num_local_experts": 3, "sliding_window": 7, "head_dim": 12}),
    "qwen2-moe": ("Qwen2MoeForCausalLM", {**QWEN, "shared_expert_intermediate_size": 20}),
    "qwen2-moe-mixed": (
        "Qwen2MoeForCausalLM",
        {**QWEN, "shared_expert_intermediate_size": 20, "num_hidden_layers": 4, "decoder_sparse_step": 2,
         "mlp_only_layers": [1], "norm_topk_prob": True, "qkv_bias": False},
    ),
    "qwen3-moe": ("Qwen3MoeForCausalLM", {**QWEN, "head_dim": 16}),
    "qwen3-moe-normalized": (
        "Qwen3MoeForCausalLM",
        {**QWEN, "norm_topk_prob": True, "tie_word_embeddings": True, "attention_bias": True, "mlp_only_layers": [0]},
    ),
    "granite-moe": ("GraniteMoeForCausalLM", {**SIZES, "num_local_experts": 5, **MULTIPLIERS}),
    "deepseek-v3": ("DeepseekV3ForCausalLM", DEEPSEEK),
    "deepseek-v3-yarn": (
        "DeepseekV3ForCausalLM",
        {**DEEPSEEK, "rope_parameters": YARN, "q_lora_rank": None, "attention_bias": True, "n_shared_experts": 2,
         "n_group": 1, "topk_group": 1, "norm_topk_prob": False, "first_k_dense_replace": 0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_loads_and_saves(name: str, tmp_path: Path) -> None:
    model = reference(*CASES[name])
    ours = assert_same_model(model, tmp_path, some_tokens())
    assert_same_tokens(model, ours, some_tokens(2, 9, seed=1))


@pytest.mark.parametrize("name", ["qwen2-moe", "deepseek-v3"])
def test_gradients(name: str, tmp_path: Path) -> None:
    model = reference(*CASES[name])
    assert_same_gradients(model, assert_same_model(model, tmp_path, some_tokens()), some_tokens())


def test_losses_of_the_router_are_no_part_of_a_checkpoint(tmp_path: Path) -> None:
    ours = assert_same_model(reference(*CASES["mixtral"]), tmp_path, some_tokens())
    trained = hub.Pretrained(replace(ours.spec, {"block.ff.losses": (LoadBalance(),)}), ours.params, {})
    hub.save(trained, tmp_path / "trained")
    assert hub.load(tmp_path / "trained").spec == ours.spec
