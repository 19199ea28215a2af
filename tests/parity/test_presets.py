"""Presets of families that transformers has: of a released configuration it makes as many parameters, and where the
family is one of the hub's, that configuration is read as the preset, field by field."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="parity tests need torch: pip install 'lm[parity]'")
transformers = pytest.importorskip("transformers", reason="parity tests need transformers: pip install 'lm[parity]'")

from lm.config import diff  # noqa: E402
from lm.hub.families import FAMILIES  # noqa: E402
from lm.hub.save import regrouped  # noqa: E402
from lm.models.presets import preset  # noqa: E402
from tests.parity.checks import spec_of  # noqa: E402

Config = tuple[str, dict[str, Any]]  # the class without its "Config", or with the task; what the release sets


def shape(width: int, layers: int, heads: int, kv_heads: int, hidden: int, **more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return {**sizes, "num_key_value_heads": kv_heads, "intermediate_size": hidden, **more}


def rope(base: float, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": base, "rope_type": "default", **more}}


def mistral(*sizes: int, base: float = 1e4, **more: Any) -> Config:
    return "Mistral", shape(*sizes, rms_norm_eps=1e-5, **rope(base), **more)


def qwen2(*sizes: int, vocab: int = 151936, tied: bool = False, base: float = 1e6, epsilon: float = 1e-6) -> Config:
    said = {"vocab_size": vocab, "tie_word_embeddings": tied, "rms_norm_eps": epsilon}
    return "Qwen2", shape(*sizes, **said, **rope(base))


def qwen3(*sizes: int, kind: str = "Qwen3", tied: bool = False, **more: Any) -> Config:
    said = {"vocab_size": 151936, "head_dim": 128, "tie_word_embeddings": tied, "rms_norm_eps": 1e-6}
    return kind, shape(*sizes, **said, **rope(1e6), **more)


def gemma(kind: str, *sizes: int, head: int = 256, **more: Any) -> Config:
    return kind, shape(*sizes, head_dim=head, rms_norm_eps=1e-6, **more)


def gemma3(*sizes: int, factor: float | None = 8.0, **more: Any) -> Config:
    stretched = {"rope_type": "default"} if factor is None else {"rope_type": "linear", "factor": factor}
    bases = {"full_attention": {"rope_theta": 1e6, **stretched}}
    bases |= {"sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}}
    said = {"sliding_window": 1024, "vocab_size": 262208, "query_pre_attn_scalar": 256}
    return gemma("Gemma3Text", *sizes, rope_parameters=bases, **{**said, **more})


def granite(*sizes: int, kind: str = "Granite", logits: float, attention: float, epsilon: float, **more: Any) -> Config:
    scales = {"embedding_multiplier": 12.0, "residual_multiplier": 0.22, "logits_scaling": logits}
    scales |= {"attention_multiplier": attention, "rms_norm_eps": epsilon}
    return kind, shape(*sizes, vocab_size=49155, tie_word_embeddings=True, **scales, **rope(1e4), **more)


def granite_moe(*sizes: int, experts: int) -> Config:
    count = {"num_local_experts": experts, "num_experts_per_tok": 8}
    return granite(*sizes, kind="GraniteMoe", logits=6.0, attention=0.015625, epsilon=1e-6, **count)


def olmo2(*sizes: int) -> Config:
    return "Olmo2", shape(*sizes, vocab_size=100352, rms_norm_eps=1e-6, **rope(5e5))


def phi3(*sizes: int, vocab: int = 32064, window: int | None = 2047, base: float = 1e4) -> Config:
    return "Phi3", shape(*sizes, vocab_size=vocab, sliding_window=window, **rope(base))


def bloom(width: int, layers: int, heads: int) -> Config:
    return "Bloom", {"vocab_size": 250880, "hidden_size": width, "n_layer": layers, "n_head": heads}


def neox(width: int, layers: int, heads: int, vocab: int = 50304) -> Config:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return "GPTNeoX", {**sizes, "intermediate_size": 4 * width, "vocab_size": vocab}


def gpt2(width: int, layers: int, heads: int, length: int = 1024) -> Config:
    return "GPT2", {"n_embd": width, "n_layer": layers, "n_head": heads, "n_positions": length}


def llama(*sizes: int, vocab: int = 32000, **more: Any) -> Config:
    return "Llama", shape(*sizes, vocab_size=vocab, **{"rms_norm_eps": 1e-5, **more})


def llama3(*sizes: int, factor: float | None, tied: bool = False) -> Config:
    slow = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    more = {} if factor is None else {"rope_type": "llama3", "factor": factor, **slow}
    return llama(*sizes, vocab=128256, tie_word_embeddings=tied, max_position_embeddings=131072, **rope(5e5, **more))


def mamba(width: int, layers: int) -> Config:
    return "Mamba", {"hidden_size": width, "num_hidden_layers": layers}


def mamba2(width: int, layers: int) -> Config:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_heads": width // 32, "n_groups": 1}
    return "Mamba2", {**sizes, "vocab_size": 50288, "tie_word_embeddings": True}


def encoder(kind: str, width: int, layers: int, heads: int, hidden: int, task: str = "MaskedLM", **more: Any) -> Config:
    sizes = shape(width, layers, heads, 0, hidden)
    del sizes["num_key_value_heads"]
    return f"{kind}For{task}", {**sizes, **more}


def electra(*sizes: int, table: int, task: str = "MaskedLM") -> Config:
    return encoder("Electra", *sizes, task=task, embedding_size=table)


QWEN2 = {
    "0.5b": qwen2(896, 24, 14, 2, 4864, tied=True),
    "1.5b": qwen2(1536, 28, 12, 2, 8960, tied=True),
    "7b": qwen2(3584, 28, 28, 4, 18944, vocab=152064),
    "72b": qwen2(8192, 80, 64, 8, 29568, vocab=152064, epsilon=1e-5),
}
YARN = {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1}
V2_LITE = {
    "vocab_size": 102400, "kv_lora_rank": 512, "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "v_head_dim": 128, "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6,
    "moe_intermediate_size": 1408, "first_k_dense_replace": 1,
}  # fmt: skip
RELEASED: dict[str, Config] = {
    "gpt2-124m": ("GPT2", {}),
    "gpt2-355m": gpt2(1024, 24, 16),
    "gpt2-774m": gpt2(1280, 36, 20),
    "gpt2-1.5b": gpt2(1600, 48, 25),
    "pythia-70m": neox(512, 6, 8),
    "pythia-1b": neox(2048, 16, 8),
    "pythia-6.9b": neox(4096, 32, 32, vocab=50432),
    "tinyllama-1.1b": llama(2048, 22, 32, 4, 5632),
    "llama-7b": ("Llama", {}),
    "llama2-7b": llama(4096, 32, 32, 32, 11008),
    "llama3-8b": llama3(4096, 32, 32, 8, 14336, factor=None),
    "llama3.1-8b": llama3(4096, 32, 32, 8, 14336, factor=8.0),
    "llama3.2-1b": llama3(2048, 16, 32, 8, 8192, factor=32.0, tied=True),
    "llama3.2-3b": llama3(3072, 28, 24, 8, 8192, factor=32.0, tied=True),
    "gpt1": ("OpenAIGPT", {}),
    "gptj-6b": ("GPTJ", {"tie_word_embeddings": False}),
    "gptneox-20b": ("GPTNeoX", {"hidden_act": "gelu_fast"}),
    "gpt3-175b": gpt2(12288, 96, 96, length=2048),
    "mistral-7b": mistral(4096, 32, 32, 8, 14336),
    "mistral-7b-v0.3": mistral(4096, 32, 32, 8, 14336, base=1e6, vocab_size=32768, sliding_window=None),
    "mixtral-8x7b": ("Mixtral", {}),
    "mixtral-8x22b": ("Mixtral", shape(6144, 56, 48, 8, 16384, **rope(1e6))),
    "qwen1.5-0.5b": qwen2(1024, 24, 16, 16, 2816, tied=True),
    "qwen1.5-1.8b": qwen2(2048, 24, 16, 16, 5504),
    "qwen1.5-4b": qwen2(2560, 40, 20, 20, 6912, base=5e6),
    "qwen1.5-7b": qwen2(4096, 32, 32, 32, 11008),
    "qwen1.5-14b": qwen2(5120, 40, 40, 40, 13696, vocab=152064),
    "qwen1.5-32b": qwen2(5120, 64, 40, 8, 27392, vocab=152064),
    "qwen1.5-72b": qwen2(8192, 80, 64, 64, 24576, vocab=152064),
    **{f"{kind}-{size}": config for kind in ("qwen2", "qwen2.5") for size, config in QWEN2.items()},
    "qwen2.5-3b": qwen2(2048, 36, 16, 2, 11008, tied=True),
    "qwen2.5-14b": qwen2(5120, 48, 40, 8, 13824, vocab=152064, epsilon=1e-5),
    "qwen2.5-32b": qwen2(5120, 64, 40, 8, 27648, vocab=152064, epsilon=1e-5),
    "qwen1.5-moe-a2.7b": ("Qwen2Moe", rope(1e6)),
    "qwen2-57b-a14b": (
        "Qwen2Moe",
        shape(
            3584,
            28,
            28,
            4,
            18944,
            num_experts=64,
            num_experts_per_tok=8,
            moe_intermediate_size=2560,
            shared_expert_intermediate_size=20480,
            **rope(1e6),
        ),
    ),
    "qwen3-0.6b": qwen3(1024, 28, 16, 8, 3072, tied=True),
    "qwen3-1.7b": qwen3(2048, 28, 16, 8, 6144, tied=True),
    "qwen3-4b": qwen3(2560, 36, 32, 8, 9728, tied=True),
    "qwen3-8b": qwen3(4096, 36, 32, 8, 12288),
    "qwen3-14b": qwen3(5120, 40, 40, 8, 17408),
    "qwen3-32b": qwen3(5120, 64, 64, 8, 25600),
    "qwen3-30b-a3b": qwen3(2048, 48, 32, 4, 6144, kind="Qwen3Moe", moe_intermediate_size=768, norm_topk_prob=True),
    "qwen3-235b-a22b": qwen3(4096, 94, 64, 4, 12288, kind="Qwen3Moe", moe_intermediate_size=1536, norm_topk_prob=True),
    "gemma-2b": gemma("Gemma", 2048, 18, 8, 1, 16384),
    "gemma-7b": ("Gemma", {}),
    "gemma2-2b": ("Gemma2", {}),
    "gemma2-9b": gemma("Gemma2", 3584, 42, 16, 8, 14336),
    "gemma2-27b": gemma("Gemma2", 4608, 46, 32, 16, 36864, head=128, query_pre_attn_scalar=144),
    "gemma3-1b": gemma3(1152, 26, 4, 1, 6912, factor=None, vocab_size=262144, sliding_window=512),
    "gemma3-4b": gemma3(2560, 34, 8, 4, 10240),
    "gemma3-12b": gemma3(3840, 48, 16, 8, 15360),
    "gemma3-27b": gemma3(5376, 62, 32, 16, 21504, head=128, query_pre_attn_scalar=168),
    "granite3-2b": granite(2048, 40, 32, 8, 8192, logits=8.0, attention=0.015625, epsilon=1e-5),
    "granite3-8b": granite(4096, 40, 32, 8, 12800, logits=16.0, attention=0.0078125, epsilon=1e-5),
    "granite3-1b-a400m": granite_moe(1024, 24, 16, 8, 512, experts=32),
    "granite3-3b-a800m": granite_moe(1536, 32, 24, 8, 512, experts=40),
    "glm4-9b": ("Glm", {}),
    "chatglm2-6b": ("Glm", {"num_hidden_layers": 28, "vocab_size": 65024, "rms_norm_eps": 1e-5, "pad_token_id": 0}),
    "olmo2-1b": olmo2(2048, 16, 16, 16, 8192),
    "olmo2-7b": olmo2(4096, 32, 32, 32, 11008),
    "olmo2-13b": olmo2(5120, 40, 40, 40, 13824),
    "olmo2-32b": olmo2(5120, 64, 40, 8, 27648),
    "phi3-mini": phi3(3072, 32, 32, 32, 8192),
    "phi3-medium": phi3(5120, 40, 40, 10, 17920),
    "phi4": phi3(5120, 40, 40, 10, 17920, vocab=100352, window=None, base=250000.0),
    "falcon-7b": ("Falcon", {}),
    "falcon-40b": (
        "Falcon",
        {
            "hidden_size": 8192,
            "num_hidden_layers": 60,
            "num_attention_heads": 128,
            "num_kv_heads": 8,
            "new_decoder_architecture": True,
        },
    ),
    "bloom-560m": bloom(1024, 24, 16),
    "bloom-1.1b": bloom(1536, 24, 16),
    "bloom-1.7b": bloom(2048, 24, 16),
    "bloom-3b": bloom(2560, 30, 32),
    "bloom-7.1b": bloom(4096, 30, 32),
    "bloom-176b": bloom(14336, 70, 112),
    "baichuan-7b": llama(4096, 32, 32, 32, 11008, vocab=64000, rms_norm_eps=1e-6),
    "deepseek-v2-lite": (
        "DeepseekV2",
        shape(2048, 27, 16, 16, 10944, **V2_LITE, **rope(1e4, **YARN, mscale=0.707, mscale_all_dim=0.707)),
    ),
    "deepseek-v3": ("DeepseekV3", rope(1e4, **YARN, mscale=1.0, mscale_all_dim=1.0)),
    "mamba-130m": mamba(768, 24),
    "mamba-370m": mamba(1024, 48),
    "mamba-790m": mamba(1536, 48),
    "mamba-1.4b": mamba(2048, 48),
    "mamba-2.8b": mamba(2560, 64),
    "mamba2-130m": mamba2(768, 24),
    "mamba2-370m": mamba2(1024, 48),
    "mamba2-780m": mamba2(1536, 48),
    "mamba2-1.3b": mamba2(2048, 48),
    "mamba2-2.7b": mamba2(2560, 64),
    "bamba-9b": ("Bamba", {"vocab_size": 128256, "mamba_d_state": 128, "attn_layer_indices": [9, 18, 27]}),
    "jamba-52b": ("Jamba", {}),
    "bert-base": ("BertForMaskedLM", {}),
    "bert-large": encoder("Bert", 1024, 24, 16, 4096),
    "roberta-base": encoder(
        "Roberta", 768, 12, 12, 3072, layer_norm_eps=1e-5, max_position_embeddings=514, type_vocab_size=1
    ),
    "roberta-large": encoder(
        "Roberta", 1024, 24, 16, 4096, layer_norm_eps=1e-5, max_position_embeddings=514, type_vocab_size=1
    ),
    "distilbert": ("DistilBertForMaskedLM", {}),
    "albert-base": encoder("Albert", 768, 12, 12, 3072),
    "albert-large": encoder("Albert", 1024, 24, 16, 4096),
    "albert-xlarge": encoder("Albert", 2048, 24, 16, 8192),
    "albert-xxlarge": ("AlbertForMaskedLM", {}),
    "modernbert-base": ("ModernBertForMaskedLM", {}),
    "modernbert-large": encoder("ModernBert", 1024, 28, 16, 2624),
    "electra-small-generator": ("ElectraForMaskedLM", {}),
    "electra-base-generator": electra(256, 12, 4, 1024, table=768),
    "electra-large-generator": electra(256, 24, 4, 1024, table=1024),
    "electra-small-discriminator": ("ElectraForPreTraining", {}),
    "electra-base-discriminator": electra(768, 12, 12, 3072, table=768, task="PreTraining"),
    "electra-large-discriminator": electra(1024, 24, 16, 4096, table=1024, task="PreTraining"),
}


def released(name: str) -> tuple[Any, Any]:
    """The class of the model, and the configuration."""
    kind, fields = RELEASED[name]
    task = kind if "For" in kind else {"OpenAIGPT": "OpenAIGPTLMHeadModel", "GPT2": "GPT2LMHeadModel"}.get(kind)
    made = getattr(transformers, task or f"{kind.removesuffix('Text')}ForCausalLM")
    config = getattr(transformers, f"{kind.partition('For')[0]}Config")(**fields)
    config.architectures = [made.__name__]
    return made, config


@pytest.mark.parametrize("name", RELEASED)
def test_as_many_parameters_as_the_reference(name: str) -> None:
    made, config = released(name)
    with torch.device("meta"):
        theirs = made(config)
    corrections = sum(b.numel() for n, b in theirs.named_buffers() if n.endswith("e_score_correction_bias"))
    unused = 2 * config.hidden_size if config.model_type == "roberta" else 0  # positions that no token has
    assert preset(name).cost(1).params == theirs.num_parameters() + corrections - unused


KNOWN = {kind for family in FAMILIES for kind in family.types}


@pytest.mark.parametrize("name", [name for name in RELEASED if released(name)[1].model_type in KNOWN])
def test_the_configuration_is_read_as_the_preset(name: str) -> None:
    assert not diff(regrouped(preset(name)), spec_of(released(name)[1]))
