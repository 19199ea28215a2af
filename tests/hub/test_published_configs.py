"""The `config.json` of released checkpoints, as their authors wrote them, is understood: no legacy field is in the way.

Written down from memory of the hub, without what is true of every file; `tests/parity` holds the numbers.
"""

from __future__ import annotations

from typing import Any

import pytest

from lm import hub
from lm.hub.families import family_of
from lm.hub.fields import Fields
from lm.hub.save import carried, family_for
from lm.models.model import Model
from lm.nn.rope import LongRoPE, RoPE

CONFIGS: dict[str, dict[str, Any]] = {}
# fmt: off
CONFIGS["gpt2"] = {
    "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "bos_token_id": 50256,
    "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
    "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
    "summary_type": "cls_index", "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}, "vocab_size": 50257,
}
CONFIGS["gpt2-medium"] = CONFIGS["gpt2"] | {
    "n_embd": 1024, "n_head": 16, "n_layer": 24, "n_special": 0, "predict_special_tokens": True,
}
CONFIGS["distilgpt2"] = CONFIGS["gpt2"] | {
    "n_layer": 6, "_num_labels": 1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0},
}
CONFIGS["openai-gpt"] = {
    "afn": "gelu", "architectures": ["OpenAIGPTLMHeadModel"], "attn_pdrop": 0.1, "embd_pdrop": 0.1,
    "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "openai-gpt", "n_ctx": 512, "n_embd": 768,
    "n_head": 12, "n_layer": 12, "n_positions": 512, "n_special": 0, "predict_special_tokens": True,
    "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
    "summary_type": "cls_index", "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}, "vocab_size": 40478,
}
CONFIGS["pythia-70m"] = {
    "architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu",
    "hidden_size": 512, "initializer_range": 0.02, "intermediate_size": 2048, "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": 8, "num_hidden_layers": 6,
    "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": False, "torch_dtype": "float16",
    "transformers_version": "4.24.0", "use_cache": True, "use_parallel_residual": True, "vocab_size": 50304,
}
CONFIGS["gpt-neox-20b"] = CONFIGS["pythia-70m"] | {
    "hidden_act": "gelu_fast", "hidden_size": 6144, "intermediate_size": 24576, "num_attention_heads": 64,
    "num_hidden_layers": 44, "vocab_size": 50432, "attention_probs_dropout_prob": 0, "hidden_dropout_prob": 0,
}
CONFIGS["falcon-7b"] = {
    "alibi": False, "apply_residual_connection_post_layernorm": False, "architectures": ["FalconForCausalLM"],
    "attention_dropout": 0.0, "auto_map": {}, "bias": False, "bos_token_id": 11, "eos_token_id": 11,
    "hidden_dropout": 0.0, "hidden_size": 4544, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
    "model_type": "falcon", "multi_query": True, "new_decoder_architecture": False, "num_attention_heads": 71,
    "num_hidden_layers": 32, "parallel_attn": True, "torch_dtype": "bfloat16", "transformers_version": "4.27.4",
    "use_cache": True, "vocab_size": 65024,
}
CONFIGS["falcon-40b"] = CONFIGS["falcon-7b"] | {
    "hidden_size": 8192, "new_decoder_architecture": True, "num_attention_heads": 128, "num_hidden_layers": 60,
    "num_kv_heads": 8,
}
CONFIGS["falcon-11B"] = CONFIGS["falcon-7b"] | {
    "hidden_size": 4096, "new_decoder_architecture": True, "num_attention_heads": 32, "num_hidden_layers": 60,
    "activation": "gelu", "ffn_hidden_size": 16384, "max_position_embeddings": 8192, "num_kv_heads": 8,
    "num_ln_in_parallel_attn": 1, "rope_scaling": None, "rope_theta": 500042.0, "tie_word_embeddings": False,
}
CONFIGS["bloom-560m"] = {
    "apply_residual_connection_post_layernorm": False, "attention_dropout": 0.0,
    "architectures": ["BloomForCausalLM"], "attention_softmax_in_fp32": True, "bias_dropout_fusion": True,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3, "unk_token_id": 0, "hidden_dropout": 0.0,
    "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "masked_softmax_fusion": True, "model_type": "bloom",
    "n_embed": 1024, "n_inner": None, "n_layer": 24, "num_attention_heads": 16, "offset_alibi": 100,
    "pretraining_tp": 1, "skip_bias_add": True, "skip_bias_add_qkv": False, "slow_but_exact": False,
    "seq_length": 2048, "transformers_version": "4.20.0", "use_cache": True, "vocab_size": 250880,
}
CONFIGS["mpt-7b"] = {
    "architectures": ["MPTForCausalLM"],
    "attn_config": {"alibi": True, "alibi_bias_max": 8, "attn_impl": "torch", "attn_pdrop": 0,
        "attn_type": "multihead_attention", "attn_uses_sequence_id": False, "clip_qkv": None,
        "prefix_lm": False, "qk_ln": False, "softmax_scale": None},
    "auto_map": {}, "d_model": 4096, "emb_pdrop": 0, "embedding_fraction": 1.0, "expansion_ratio": 4,
    "init_config": {"emb_init_std": None}, "init_device": "cpu", "learned_pos_emb": True, "logit_scale": None,
    "max_seq_len": 2048, "model_type": "mpt", "n_heads": 32, "n_layers": 32, "no_bias": True,
    "norm_type": "low_precision_layernorm", "resid_pdrop": 0, "tokenizer_name": "EleutherAI/gpt-neox-20b",
    "torch_dtype": "bfloat16", "transformers_version": "4.28.1", "use_cache": False, "verbose": 0,
    "vocab_size": 50432,
}
CONFIGS["Llama-2-7b-hf"] = {
    "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 11008, "max_position_embeddings": 4096,
    "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None, "tie_word_embeddings": False,
    "torch_dtype": "float16", "transformers_version": "4.31.0.dev0", "use_cache": True, "vocab_size": 32000,
}
CONFIGS["llama-7b"] = {
    "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 11008, "max_position_embeddings": 2048,
    "max_sequence_length": 2048, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
    "pad_token_id": 0, "rms_norm_eps": 1e-06, "tie_word_embeddings": False, "torch_dtype": "float16",
    "transformers_version": "4.28.0.dev0", "use_cache": True, "vocab_size": 32000,
}
CONFIGS["vicuna-7b-v1.5"] = CONFIGS["Llama-2-7b-hf"] | {
    "max_length": 4096, "pad_token_id": 0, "temperature": 0.9, "top_p": 0.6,
}
CONFIGS["Llama-3.2-1B"] = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 128000,
    "eos_token_id": 128001, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
    "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": False, "model_type": "llama",
    "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0", "use_cache": True, "vocab_size": 128256,
}
CONFIGS["SmolLM2-135M"] = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 0,
    "eos_token_id": 0, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536, "is_llama_config": True, "max_position_embeddings": 8192, "model_type": "llama",
    "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3, "pretraining_tp": 1,
    "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_scaling": None, "rope_theta": 100000,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers_version": "4.40.1", "use_cache": True,
    "vocab_size": 49152,
}
CONFIGS["SmolLM2-135M-Instruct"] = CONFIGS["SmolLM2-135M"] | {
    "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
}
CONFIGS["Mistral-7B-v0.1"] = {
    "architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 32768,
    "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "transformers_version": "4.34.0.dev0", "use_cache": True, "vocab_size": 32000,
}
CONFIGS["Mistral-7B-v0.3"] = CONFIGS["Mistral-7B-v0.1"] | {
    "rope_theta": 1000000.0, "sliding_window": None, "vocab_size": 32768, "attention_dropout": 0.0,
}
CONFIGS["Mistral-Nemo-Base-2407"] = CONFIGS["Mistral-7B-v0.3"] | {
    "hidden_size": 5120, "max_position_embeddings": 128000, "num_hidden_layers": 40, "vocab_size": 131072,
    "head_dim": 128,
}
CONFIGS["Mixtral-8x7B-v0.1"] = {
    "architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
    "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
    "max_position_embeddings": 32768, "model_type": "mixtral", "num_attention_heads": 32, "num_experts_per_tok": 2,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8, "output_router_logits": False,
    "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02, "sliding_window": None,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.36.0.dev0", "use_cache": True,
    "vocab_size": 32000,
}
CONFIGS["Qwen2.5-0.5B"] = {
    "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151643,
    "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02, "intermediate_size": 4864,
    "max_position_embeddings": 32768, "max_window_layers": 24, "model_type": "qwen2", "num_attention_heads": 14,
    "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
    "sliding_window": 32768, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers_version": "4.40.1",
    "use_cache": True, "use_mrope": False, "use_sliding_window": False, "vocab_size": 151936,
}
CONFIGS["Qwen1.5-MoE-A2.7B"] = {
    "architectures": ["Qwen2MoeForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
    "decoder_sparse_step": 1, "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 2048,
    "initializer_range": 0.02, "intermediate_size": 5632, "max_position_embeddings": 8192, "max_window_layers": 21,
    "model_type": "qwen2_moe", "moe_intermediate_size": 1408, "norm_topk_prob": False, "num_attention_heads": 16,
    "num_experts": 60, "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 16,
    "output_router_logits": False, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001,
    "shared_expert_intermediate_size": 5632, "sliding_window": 32768, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "transformers_version": "4.39.0.dev0", "use_cache": True, "use_sliding_window": False,
    "vocab_size": 151936,
}
CONFIGS["Qwen3-0.6B"] = {
    "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 151643,
    "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "initializer_range": 0.02,
    "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
    "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
    "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True,
    "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": True, "use_sliding_window": False,
    "vocab_size": 151936,
}
CONFIGS["Qwen3-30B-A3B"] = {
    "architectures": ["Qwen3MoeForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "bos_token_id": 151643, "decoder_sparse_step": 1, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu",
    "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 6144, "max_position_embeddings": 40960,
    "max_window_layers": 48, "mlp_only_layers": [], "model_type": "qwen3_moe", "moe_intermediate_size": 768,
    "norm_topk_prob": True, "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8,
    "num_hidden_layers": 48, "num_key_value_heads": 4, "output_router_logits": False, "rms_norm_eps": 1e-06,
    "rope_scaling": None, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001, "sliding_window": None,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": True,
    "use_sliding_window": False, "vocab_size": 151936,
}
CONFIGS["gemma-2b"] = {
    "architectures": ["GemmaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 2,
    "eos_token_id": 1, "head_dim": 256, "hidden_act": "gelu", "hidden_size": 2048, "initializer_range": 0.02,
    "intermediate_size": 16384, "max_position_embeddings": 8192, "model_type": "gemma", "num_attention_heads": 8,
    "num_hidden_layers": 18, "num_key_value_heads": 1, "pad_token_id": 0, "rms_norm_eps": 1e-06, "rope_scaling": None,
    "rope_theta": 10000.0, "torch_dtype": "bfloat16", "transformers_version": "4.38.0.dev0", "use_cache": True,
    "vocab_size": 256000,
}
CONFIGS["gemma-1.1-2b-it"] = CONFIGS["gemma-2b"] | {
    "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
}
CONFIGS["gemma-2-2b"] = {
    "architectures": ["Gemma2ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "attn_logit_softcapping": 50.0, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": 1,
    "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304, "initializer_range": 0.02,
    "intermediate_size": 9216, "max_position_embeddings": 8192, "model_type": "gemma2", "num_attention_heads": 8,
    "num_hidden_layers": 26, "num_key_value_heads": 4, "pad_token_id": 0, "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096, "torch_dtype": "float32",
    "transformers_version": "4.42.4", "use_cache": True, "vocab_size": 256000,
}
CONFIGS["gemma-2-27b"] = CONFIGS["gemma-2-2b"] | {
    "head_dim": 128, "hidden_size": 4608, "intermediate_size": 36864, "num_attention_heads": 32,
    "num_hidden_layers": 46, "num_key_value_heads": 16, "query_pre_attn_scalar": 144, "sliding_window_size": 4096,
    "_attn_implementation": "eager",
}
CONFIGS["gemma-3-1b-it"] = {
    "architectures": ["Gemma3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "attn_logit_softcapping": None, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": [1, 106],
    "final_logit_softcapping": None, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152,
    "initializer_range": 0.02, "intermediate_size": 6912, "max_position_embeddings": 32768,
    "model_type": "gemma3_text", "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1,
    "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000,
    "rope_scaling": None, "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6,
    "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0", "use_cache": True, "vocab_size": 262144,
}
CONFIGS["granite-3.1-2b-base"] = {
    "architectures": ["GraniteForCausalLM"], "attention_bias": False, "attention_dropout": 0.1,
    "attention_multiplier": 0.015625, "bos_token_id": 0, "embedding_multiplier": 12.0, "eos_token_id": 0,
    "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192,
    "logits_scaling": 8.0, "max_position_embeddings": 131072, "mlp_bias": False, "model_type": "granite",
    "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 8, "pad_token_id": 0,
    "residual_multiplier": 0.22, "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 5000000.0,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers_version": "4.47.0.dev0", "use_cache": True,
    "vocab_size": 49152,
}
CONFIGS["glm-4-9b-hf"] = {
    "architectures": ["GlmForCausalLM"], "attention_bias": True, "attention_dropout": 0.0,
    "eos_token_id": [151329, 151336, 151338], "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096,
    "initializer_range": 0.02, "intermediate_size": 13696, "max_position_embeddings": 8192, "model_type": "glm",
    "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 2, "pad_token_id": 151329,
    "rms_norm_eps": 1.5625e-07, "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "transformers_version": "4.46.0.dev0", "use_cache": True, "vocab_size": 151552,
}
CONFIGS["GLM-4-9B-0414"] = CONFIGS["glm-4-9b-hf"] | {
    "architectures": ["Glm4ForCausalLM"], "attention_bias": False, "model_type": "glm4", "rms_norm_eps": 1e-05,
    "partial_rotary_factor": 0.5,
}
CONFIGS["OLMo-2-1124-7B"] = {
    "architectures": ["Olmo2ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "eos_token_id": 100257,
    "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 11008,
    "max_position_embeddings": 4096, "model_type": "olmo2", "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 32, "pad_token_id": 100277, "rms_norm_eps": 1e-06, "rope_scaling": None,
    "rope_theta": 500000, "tie_word_embeddings": False, "torch_dtype": "float32",
    "transformers_version": "4.47.0.dev0", "use_cache": True, "vocab_size": 100352,
}
CONFIGS["Phi-3-mini-4k-instruct"] = {
    "_name_or_path": "Phi-3-mini-4k-instruct", "architectures": ["Phi3ForCausalLM"], "attention_bias": False,
    "attention_dropout": 0.0, "auto_map": {}, "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 32000,
    "hidden_act": "silu", "hidden_size": 3072, "initializer_range": 0.02, "intermediate_size": 8192,
    "max_position_embeddings": 4096, "model_type": "phi3", "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 32, "original_max_position_embeddings": 4096, "pad_token_id": 32000, "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 10000.0, "sliding_window": 2047,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.40.2", "use_cache": True,
    "vocab_size": 32064,
}
CONFIGS["Phi-3-mini-128k-instruct"] = CONFIGS["Phi-3-mini-4k-instruct"] | {
    "max_position_embeddings": 131072,
    "rope_scaling": {"type": "longrope", "long_factor": [2.0] * 48, "short_factor": [1.5] * 48},
        "sliding_window": 262144,
}
CONFIGS["Phi-4-mini-instruct"] = CONFIGS["Phi-3-mini-128k-instruct"] | {
    "num_attention_heads": 24, "num_key_value_heads": 8,
    "rope_scaling": {"type": "longrope", "long_factor": [2.0] * 48, "short_factor": [1.5] * 48},
        "tie_word_embeddings": True,
    "vocab_size": 200064, "full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False, "mlp_bias": False,
    "partial_rotary_factor": 0.75,
}
CONFIGS["DeepSeek-V3-bf16"] = {
    "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "auto_map": {},
    "aux_loss_alpha": 0.001, "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1, "first_k_dense_replace": 3,
    "hidden_act": "silu", "hidden_size": 7168, "initializer_range": 0.02, "intermediate_size": 18432,
    "kv_lora_rank": 512, "max_position_embeddings": 163840, "model_type": "deepseek_v3",
    "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1,
    "norm_topk_prob": True, "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61,
    "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "pretraining_tp": 1, "q_lora_rank": 1536,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06,
    "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096, "type": "yarn"},
    "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "seq_aux": True,
    "tie_word_embeddings": False, "topk_group": 4, "topk_method": "noaux_tc", "torch_dtype": "bfloat16",
    "transformers_version": "4.33.1", "use_cache": True, "v_head_dim": 128, "vocab_size": 129280,
}
CONFIGS["Moonlight-16B-A3B"] = CONFIGS["DeepSeek-V3-bf16"] | {
    "first_k_dense_replace": 1, "hidden_size": 2048, "intermediate_size": 11264, "moe_intermediate_size": 1408,
    "n_group": 1, "n_routed_experts": 64, "n_shared_experts": 2, "num_attention_heads": 16, "num_experts_per_tok": 6,
    "num_hidden_layers": 27, "num_key_value_heads": 16, "num_nextn_predict_layers": 0, "q_lora_rank": None,
    "rope_scaling": None, "rope_theta": 50000.0, "routed_scaling_factor": 2.446, "topk_group": 1,
}
CONFIGS["mamba-130m-hf"] = {
    "architectures": ["MambaForCausalLM"], "bos_token_id": 0, "conv_kernel": 4, "d_inner": 1536, "d_model": 768,
    "eos_token_id": 0, "expand": 2, "fused_add_norm": True, "hidden_act": "silu", "hidden_size": 768,
    "initializer_range": 0.1, "intermediate_size": 1536, "layer_norm_epsilon": 1e-05, "model_type": "mamba",
    "n_layer": 24, "num_hidden_layers": 24, "pad_token_id": 0, "pad_vocab_size_multiple": 8,
    "rescale_prenorm_residual": False, "residual_in_fp32": True, "rms_norm": True, "ssm_cfg": {}, "state_size": 16,
    "time_step_floor": 0.0001, "time_step_init_scheme": "random", "time_step_max": 0.1, "time_step_min": 0.001,
    "time_step_rank": 48, "time_step_scale": 1.0, "torch_dtype": "float32", "transformers_version": "4.39.0.dev0",
    "use_bias": False, "use_cache": True, "use_conv_bias": True, "vocab_size": 50280,
}
CONFIGS["Mamba-Codestral-7B-v0.1"] = {
    "architectures": ["Mamba2ForCausalLM"], "bos_token_id": 0, "chunk_size": 256, "conv_kernel": 4, "eos_token_id": 0,
    "expand": 2, "head_dim": 64, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.1,
    "intermediate_size": 8192, "layer_norm_epsilon": 1e-05, "model_type": "mamba2", "n_groups": 8,
    "norm_before_gate": True, "num_heads": 128, "num_hidden_layers": 64, "pad_token_id": 0,
    "rescale_prenorm_residual": False, "residual_in_fp32": True, "rms_norm": True, "state_size": 128,
    "tie_word_embeddings": False, "time_step_floor": 0.0001, "time_step_init_scheme": "random",
    "time_step_limit": [0.0, float("inf")], "time_step_max": 0.1, "time_step_min": 0.001, "time_step_rank": 256,
    "time_step_scale": 1.0, "torch_dtype": "bfloat16", "transformers_version": "4.44.0.dev0", "use_bias": False,
    "use_cache": True, "use_conv_bias": True, "vocab_size": 32768,
}
CONFIGS["Bamba-9B"] = {
    "architectures": ["BambaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "attn_layer_indices": [9, 18, 27], "attn_rotary_emb": 64, "bos_token_id": 128000, "eos_token_id": 128001,
    "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
    "mamba_chunk_size": 256, "mamba_conv_bias": True, "mamba_d_conv": 4, "mamba_d_head": 64, "mamba_d_state": 128,
    "mamba_expand": 2, "mamba_n_groups": 1, "mamba_n_heads": 128, "mamba_proj_bias": False,
    "max_position_embeddings": 4096, "mlp_bias": False, "model_type": "bamba", "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "num_logits_to_keep": 1, "pad_token_id": 0,
    "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "transformers_version": "4.48.0.dev0", "use_cache": True, "use_mamba_kernels": True,
    "vocab_size": 128256,
}
CONFIGS["t5-small"] = {
    "architectures": ["T5ForConditionalGeneration"], "d_ff": 2048, "d_kv": 64, "d_model": 512,
    "decoder_start_token_id": 0, "dropout_rate": 0.1, "eos_token_id": 1, "initializer_factor": 1.0,
    "is_encoder_decoder": True, "layer_norm_epsilon": 1e-06, "model_type": "t5", "n_positions": 512, "num_heads": 8,
    "num_layers": 6, "output_past": True, "pad_token_id": 0, "relative_attention_num_buckets": 32,
    "task_specific_params": {"summarization": {"early_stopping": True}}, "vocab_size": 32128,
}
CONFIGS["flan-t5-small"] = CONFIGS["t5-small"] | {
    "d_ff": 1024, "num_heads": 6, "num_layers": 8, "feed_forward_proj": "gated-gelu", "num_decoder_layers": 8,
    "tie_word_embeddings": False, "dense_act_fn": "gelu_new", "is_gated_act": True, "classifier_dropout": 0.0,
    "relative_attention_max_distance": 128, "use_cache": True,
}
CONFIGS["mt5-small"] = {
    "_name_or_path": "/home/patrick/hugging_face/mt5/mt5-small", "architectures": ["MT5ForConditionalGeneration"],
    "d_ff": 1024, "d_kv": 64, "d_model": 512, "decoder_start_token_id": 0, "dropout_rate": 0.1, "eos_token_id": 1,
    "feed_forward_proj": "gated-gelu", "initializer_factor": 1.0, "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06, "model_type": "mt5", "num_decoder_layers": 8, "num_heads": 6, "num_layers": 8,
    "pad_token_id": 0, "relative_attention_num_buckets": 32, "tie_word_embeddings": False,
    "tokenizer_class": "T5Tokenizer", "transformers_version": "4.10.0.dev0", "use_cache": True, "vocab_size": 250112,
}
CONFIGS["umt5-small"] = CONFIGS["mt5-small"] | {
    "architectures": ["UMT5ForConditionalGeneration"], "model_type": "umt5", "vocab_size": 256384,
    "classifier_dropout": 0.0, "dense_act_fn": "gelu_new", "is_gated_act": True,
    "relative_attention_max_distance": 128, "scalable_attention": True,
}
CONFIGS["switch-base-8"] = {
    "add_router_probs": False, "architectures": ["SwitchTransformersForConditionalGeneration"],
    "batch_prioritized_routing": False, "capacity_factor": 1.25, "d_ff": 3072, "d_kv": 64, "d_model": 768,
    "decoder_sparse_step": 2, "decoder_start_token_id": 0, "dense_act_fn": "relu", "dropout_rate": 0.1,
    "encoder_sparse_step": 2, "eos_token_id": 1, "expert_capacity": 64, "feed_forward_proj": "relu",
    "initializer_factor": 1.0, "is_encoder_decoder": True, "is_gated_act": False, "layer_norm_epsilon": 1e-06,
    "model_type": "switch_transformers", "n_positions": 512, "num_decoder_layers": 12, "num_experts": 8,
    "num_heads": 12, "num_layers": 12, "num_selected_experts": 1, "num_sparse_decoder_layers": 6,
    "num_sparse_encoder_layers": 6, "pad_token_id": 0, "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32, "reuse_router": False, "router_aux_loss_coef": 0.001, "router_bias": False,
    "router_dtype": "float32", "router_ignore_padding_tokens": False, "router_jitter_noise": 0.01,
    "router_type": "tokens_masked", "router_z_loss_coef": 0.001, "transformers_version": "4.24.0.dev0",
    "use_cache": True, "vocab_size": 32128,
}
CONFIGS["bert-base-uncased"] = {
    "architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.1, "gradient_checkpointing": False,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768, "initializer_range": 0.02,
    "intermediate_size": 3072, "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert",
    "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 0, "position_embedding_type": "absolute",
    "transformers_version": "4.6.0.dev0", "type_vocab_size": 2, "use_cache": True, "vocab_size": 30522,
}
CONFIGS["bert-base-multilingual-cased"] = CONFIGS["bert-base-uncased"] | {
    "vocab_size": 119547, "directionality": "bidi", "pooler_fc_size": 768, "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3, "pooler_size_per_head": 128, "pooler_type": "first_token_transform",
}
CONFIGS["roberta-base"] = {
    "architectures": ["RobertaForMaskedLM"], "attention_probs_dropout_prob": 0.1, "bos_token_id": 0,
    "eos_token_id": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768,
    "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-05, "max_position_embeddings": 514,
    "model_type": "roberta", "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 1,
    "type_vocab_size": 1, "vocab_size": 50265,
}
CONFIGS["xlm-roberta-base"] = CONFIGS["roberta-base"] | {
    "architectures": ["XLMRobertaForMaskedLM"], "model_type": "xlm-roberta", "vocab_size": 250002,
    "output_past": True, "position_embedding_type": "absolute", "use_cache": True,
}
CONFIGS["camembert-base"] = CONFIGS["roberta-base"] | {
    "architectures": ["CamembertForMaskedLM"], "bos_token_id": 5, "eos_token_id": 6, "model_type": "camembert",
    "vocab_size": 32005, "output_past": True,
}
CONFIGS["distilbert-base-uncased"] = {
    "activation": "gelu", "architectures": ["DistilBertForMaskedLM"], "attention_dropout": 0.1, "dim": 768,
    "dropout": 0.1, "hidden_dim": 3072, "initializer_range": 0.02, "max_position_embeddings": 512,
    "model_type": "distilbert", "n_heads": 12, "n_layers": 6, "pad_token_id": 0, "qa_dropout": 0.1,
    "seq_classif_dropout": 0.2, "sinusoidal_pos_embds": False, "tie_weights_": True,
    "transformers_version": "4.10.0.dev0", "vocab_size": 30522,
}
CONFIGS["distilbert-sst2"] = CONFIGS["distilbert-base-uncased"] | {
    "architectures": ["DistilBertForSequenceClassification"], "finetuning_task": "sst-2",
    "id2label": {"0": "NEGATIVE", "1": "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}, "output_past": True,
}
CONFIGS["electra-small-discriminator"] = {
    "architectures": ["ElectraForPreTraining"], "attention_probs_dropout_prob": 0.1, "embedding_size": 128,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 256, "initializer_range": 0.02,
    "intermediate_size": 1024, "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "electra",
    "num_attention_heads": 4, "num_hidden_layers": 12, "type_vocab_size": 2, "vocab_size": 30522,
}
CONFIGS["electra-small-generator"] = CONFIGS["electra-small-discriminator"] | {
    "architectures": ["ElectraForMaskedLM"], "summary_activation": "gelu", "summary_last_dropout": 0.1,
    "summary_type": "first", "summary_use_proj": True, "position_embedding_type": "absolute", "pad_token_id": 0,
}
CONFIGS["albert-base-v2"] = {
    "architectures": ["AlbertForMaskedLM"], "attention_probs_dropout_prob": 0, "bos_token_id": 2,
    "classifier_dropout_prob": 0.1, "down_scale_factor": 1, "embedding_size": 128, "eos_token_id": 3, "gap_size": 0,
    "hidden_act": "gelu_new", "hidden_dropout_prob": 0, "hidden_size": 768, "initializer_range": 0.02,
    "inner_group_num": 1, "intermediate_size": 3072, "layer_norm_eps": 1e-12, "max_position_embeddings": 512,
    "model_type": "albert", "net_structure_type": 0, "num_attention_heads": 12, "num_hidden_groups": 1,
    "num_hidden_layers": 12, "num_memory_blocks": 0, "pad_token_id": 0, "type_vocab_size": 2, "vocab_size": 30000,
}
CONFIGS["ModernBERT-base"] = {
    "architectures": ["ModernBertForMaskedLM"], "attention_bias": False, "attention_dropout": 0.0,
    "bos_token_id": 50281, "classifier_activation": "gelu", "classifier_bias": False, "classifier_dropout": 0.0,
    "classifier_pooling": "mean", "cls_token_id": 50281, "decoder_bias": True, "deterministic_flash_attn": False,
    "embedding_dropout": 0.0, "eos_token_id": 50282, "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0,
    "gradient_checkpointing": False, "hidden_activation": "gelu", "hidden_size": 768,
    "initializer_cutoff_factor": 2.0, "initializer_range": 0.02, "intermediate_size": 1152, "layer_norm_eps": 1e-05,
    "local_attention": 128, "local_rope_theta": 10000.0, "max_position_embeddings": 8192, "mlp_bias": False,
    "mlp_dropout": 0.0, "model_type": "modernbert", "norm_bias": False, "norm_eps": 1e-05, "num_attention_heads": 12,
    "num_hidden_layers": 22, "pad_token_id": 50283, "position_embedding_type": "absolute", "sep_token_id": 50282,
    "tie_word_embeddings": True, "torch_dtype": "float32", "transformers_version": "4.47.0.dev0", "vocab_size": 50368,
}
CONFIGS["bart-base"] = {
    "_name_or_path": "bart-base", "activation_dropout": 0.1, "activation_function": "gelu", "add_bias_logits": False,
    "add_final_layer_norm": False, "architectures": ["BartModel"], "attention_dropout": 0.1, "bos_token_id": 0,
    "classif_dropout": 0.1, "classifier_dropout": 0.0, "d_model": 768, "decoder_attention_heads": 12,
    "decoder_ffn_dim": 3072, "decoder_layerdrop": 0.0, "decoder_layers": 6, "decoder_start_token_id": 2,
    "dropout": 0.1, "early_stopping": True, "encoder_attention_heads": 12, "encoder_ffn_dim": 3072,
    "encoder_layerdrop": 0.0, "encoder_layers": 6, "eos_token_id": 2, "forced_bos_token_id": 0,
    "forced_eos_token_id": 2, "gradient_checkpointing": False,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, "init_std": 0.02, "is_encoder_decoder": True,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}, "max_position_embeddings": 1024, "model_type": "bart",
    "no_repeat_ngram_size": 3, "normalize_before": False, "normalize_embedding": True, "num_beams": 4,
    "num_hidden_layers": 6, "pad_token_id": 1, "scale_embedding": False, "task_specific_params": {},
    "torch_dtype": "float32", "transformers_version": "4.12.0.dev0", "use_cache": True, "vocab_size": 50265,
}
CONFIGS["bart-large-cnn"] = CONFIGS["bart-base"] | {
    "architectures": ["BartForConditionalGeneration"], "d_model": 1024, "decoder_attention_heads": 16,
    "decoder_ffn_dim": 4096, "decoder_layers": 12, "encoder_attention_heads": 16, "encoder_ffn_dim": 4096,
    "encoder_layers": 12, "num_hidden_layers": 12, "vocab_size": 50264, "_num_labels": 3,
    "force_bos_token_to_be_generated": True, "length_penalty": 2.0, "max_length": 142, "min_length": 56,
    "output_past": True, "prefix": " ",
}
CONFIGS["opus-mt-en-de"] = CONFIGS["bart-base"] | {
    "activation_dropout": 0.0, "activation_function": "swish", "architectures": ["MarianMTModel"], "d_model": 512,
    "decoder_attention_heads": 8, "decoder_ffn_dim": 2048, "decoder_start_token_id": 58100,
    "encoder_attention_heads": 8, "encoder_ffn_dim": 2048, "forced_bos_token_id": None,
    "max_position_embeddings": 512, "model_type": "marian", "no_repeat_ngram_size": None,
    "normalize_embedding": False, "num_beams": 6, "pad_token_id": 58100, "scale_embedding": True, "vocab_size": 58101,
    "_num_labels": 3, "bad_words_ids": [[58100]], "decoder_vocab_size": 58101, "max_length": 512,
    "share_encoder_decoder_embeddings": True, "static_position_embeddings": True,
}
CONFIGS["pegasus-xsum"] = CONFIGS["bart-large-cnn"] | {
    "activation_function": "relu", "add_final_layer_norm": True, "architectures": ["PegasusForConditionalGeneration"],
    "decoder_layers": 16, "decoder_start_token_id": 0, "encoder_layers": 16, "max_position_embeddings": 512,
    "model_type": "pegasus", "normalize_before": True, "normalize_embedding": False, "num_beams": 8,
    "num_hidden_layers": 16, "scale_embedding": True, "vocab_size": 96103, "force_bos_token_to_be_generated": False,
    "length_penalty": 0.6, "max_length": 64, "extra_pos_embeddings": 1, "static_position_embeddings": True,
}
CONFIGS["mbart-large-cc25"] = CONFIGS["bart-large-cnn"] | {
    "add_final_layer_norm": True, "architectures": ["MBartForConditionalGeneration"], "model_type": "mbart",
    "normalize_before": True, "scale_embedding": True, "vocab_size": 250027, "force_bos_token_to_be_generated": None,
    "static_position_embeddings": False,
}
CONFIGS["mbart-large-50"] = CONFIGS["mbart-large-cc25"] | {
    "vocab_size": 250054, "tokenizer_class": "MBart50Tokenizer",
}
# fmt: on

# millions of parameters that their authors or the hub name, encoders with their heads
SIZES = {
    "gpt2": 124, "gpt2-medium": 355, "distilgpt2": 82, "openai-gpt": 117, "pythia-70m": 70, "gpt-neox-20b": 20554,
    "falcon-7b": 6922, "falcon-40b": 41303, "bloom-560m": 559, "mpt-7b": 6649, "Llama-2-7b-hf": 6738, "llama-7b": 6738,
    "Llama-3.2-1B": 1236, "SmolLM2-135M": 135, "Mistral-7B-v0.1": 7242, "Mistral-7B-v0.3": 7248,
    "Mistral-Nemo-Base-2407": 12248, "Mixtral-8x7B-v0.1": 46703, "Qwen2.5-0.5B": 494, "Qwen1.5-MoE-A2.7B": 14316,
    "Qwen3-0.6B": 596, "Qwen3-30B-A3B": 30532, "gemma-2b": 2506, "gemma-2-2b": 2614, "gemma-2-27b": 27227,
    "gemma-3-1b-it": 1000, "glm-4-9b-hf": 9400, "OLMo-2-1124-7B": 7299, "Phi-3-mini-4k-instruct": 3821,
    "Phi-4-mini-instruct": 3836, "DeepSeek-V3-bf16": 671026, "mamba-130m-hf": 129, "Mamba-Codestral-7B-v0.1": 7285,
    "Bamba-9B": 9780, "t5-small": 60, "flan-t5-small": 77, "mt5-small": 300, "bert-base-uncased": 110,
    "roberta-base": 125, "distilbert-base-uncased": 67, "albert-base-v2": 11.2, "ModernBERT-base": 149.6,
    "bart-base": 139, "bart-large-cnn": 406, "pegasus-xsum": 569, "mbart-large-cc25": 611,
}  # fmt: skip


def read(config: dict[str, Any]) -> Model:
    fields = Fields(config)
    found = family_of(fields).read(fields)
    fields.finish()
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_understood_and_written_back(name: str) -> None:
    model = read(CONFIGS[name])
    _, written = family_for(model, CONFIGS[name]["model_type"])
    assert written["model_type"] == CONFIGS[name]["model_type"]


@pytest.mark.parametrize("name", SIZES)
def test_of_the_published_size(name: str) -> None:
    assert read(CONFIGS[name]).cost(1).params / 1e6 == pytest.approx(SIZES[name], rel=0.015)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("falcon-7b", "apply_residual_connection_post_layernorm", True),
        ("SmolLM2-135M", "rope_interleaved", True),
        ("Qwen2.5-0.5B", "use_mrope", True),
        ("Phi-4-mini-instruct", "lm_head_bias", True),
        ("Phi-4-mini-instruct", "mlp_bias", True),
        ("Phi-4-mini-instruct", "interpolate_factor", 2),
        ("mamba-130m-hf", "rms_norm", False),
        ("switch-base-8", "reuse_router", True),
        ("DeepSeek-V3-bf16", "quantization_config", {"quant_method": "fp8"}),
    ],
)
def test_the_same_fields_where_they_would_matter(name: str, field: str, value: Any) -> None:
    with pytest.raises(hub.HubError, match=field):
        read({**CONFIGS[name], field: value})


def rope_of(config: dict[str, Any]) -> Any:
    position = read(config).block.mixer.position  # type: ignore[attr-defined]
    assert isinstance(position, RoPE)
    return position


def test_phi3_has_its_original_length_outside() -> None:
    """transformers takes 4096 where it isn't there, whatever `rope_parameters` says,
    and knows no other kind of rope."""
    config = CONFIGS["Phi-3-mini-128k-instruct"]
    del (bare := dict(config))["original_max_position_embeddings"]
    inside = bare | {"rope_scaling": {**config["rope_scaling"], "original_max_position_embeddings": 8192}}
    assert rope_of(inside) == rope_of(config)
    longer = {**config, "original_max_position_embeddings": 8192}
    scaling = rope_of(longer).scaling
    assert isinstance(scaling, LongRoPE) and scaling.original_length == 8192
    assert family_for(read(longer), "phi3")[1]["original_max_position_embeddings"] == 8192
    with pytest.raises(hub.HubError, match="no other"):
        read({**config, "rope_scaling": {"type": "linear", "factor": 2.0}})


def test_rope_in_both_ways() -> None:
    """Files for old and new releases say it twice; what is inside goes first."""
    llama = CONFIGS["Llama-2-7b-hf"]
    both = {**llama, "rope_theta": 1e4, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    assert rope_of(both) == RoPE(base=5e5)
    phi4 = CONFIGS["Phi-4-mini-instruct"]
    inside = {**phi4["rope_scaling"], "partial_rotary_factor": 0.75}
    assert read({**phi4, "rope_scaling": inside}) == read(phi4)
    yarn = {"type": "yarn", "factor": 16.0, "original_max_position_embeddings": 4096, "finetuned": True}
    assert rope_of({**llama, "rope_scaling": yarn}).scaling.factor == 16


def test_names_of_other_classes_are_not_carried() -> None:
    names = {"id2label": {"0": "A", "1": "B"}, "label2id": {"A": 0, "B": 1}}
    assert carried({**names, "eos_token_id": 3}, {"num_labels": 2}) == {**names, "eos_token_id": 3}
    assert carried({**names, "eos_token_id": 3}, {"num_labels": 3}) == {"eos_token_id": 3}
