"""transformers' configs and weights in our terms, for tests only: one entry in `FAMILIES` for each architecture.

A weight's map is linear, so it maps gradients too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lm.models import Decoder
from lm.nn import (
    GELU,
    MLP,
    ALiBi,
    Attention,
    Block,
    DynamicNTK,
    GatedMLP,
    LayerNorm,
    Learned,
    LinearScaling,
    Llama3Scaling,
    LongRoPE,
    Mask,
    Parallel,
    PostNorm,
    PreNorm,
    ProportionalScaling,
    RMSNorm,
    RoPE,
    Sandwich,
    SharedParallel,
    SiLU,
    YaRN,
)

State = Mapping[str, np.ndarray]
Get = Callable[[str], np.ndarray]  # a tensor of one layer by its name in transformers
Flat = dict[str, np.ndarray]  # dotted path in our tree -> array


@dataclass(frozen=True)
class Family:
    """top: our path -> their name, outside the layers; layers: the prefix of theirs; layer: their tensors as ours."""

    spec: Callable[[Any], Decoder]
    top: dict[str, str]
    layers: str
    layer: Callable[[Get, Decoder, Attention], Flat]


def spec_of(config: Any) -> Decoder:
    """The config of a transformers model as a Decoder."""
    return FAMILIES[config.model_type].spec(config)


def params_of(model_type: str, spec: Decoder, state: State) -> dict[str, Any]:
    """A state dict, or gradients under the same names, as our tree. Raises AssertionError if a tensor stays unused."""
    family, used, flat = FAMILIES[model_type], set(), {}

    def get(name: str) -> np.ndarray:
        used.add(name)
        return state[name]

    for path, name in family.top.items():
        if path.split(".")[0] != "unembedding" or not spec.tied:
            flat[path] = get(name)
    count = len(spec.pattern)
    for entry, block in enumerate(spec.pattern):
        rows = []
        for index in range(entry, spec.layers, count):
            prefix = f"{family.layers}.{index}."
            rows.append(family.layer(lambda name, prefix=prefix: get(prefix + name), spec, block.mixer))  # type: ignore[arg-type]
        flat |= {f"blocks.{entry}.{path}": np.stack([row[path] for row in rows]) for path in rows[0]}
    left = {name for name in state if name not in used and not (spec.tied and name == "lm_head.weight")}
    assert not left, f"tensors that nothing read: {sorted(left)}"
    return nested(flat)


def nested(flat: Flat) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def rename(get: Get, names: dict[str, str], form: Callable[[np.ndarray], np.ndarray] = np.asarray) -> Flat:
    return {path: form(get(name)) for path, name in names.items()}


# ---- GPT-1, GPT-2 ------------------------------------------------------------------------------------------


def gpt_spec(config: Any) -> Decoder:
    norm = LayerNorm(epsilon=config.layer_norm_epsilon)
    first = config.model_type == "openai-gpt"
    mixer = Attention(heads=config.n_head, kv_heads=config.n_head, position=None, bias=True, output_bias=True)
    hidden = getattr(config, "n_inner", None) or 4 * config.n_embd
    return Decoder(
        vocab=config.vocab_size,
        width=config.n_embd,
        layers=config.n_layer,
        block=Block(
            mixer=mixer,
            ff=MLP(hidden=hidden, activation=GELU(approximate=True), bias=True),
            norm=norm,
            residual=PostNorm() if first else PreNorm(),
        ),
        position=Learned(length=config.n_positions),
        norm=None if first else norm,
        tied=config.tie_word_embeddings,
    )


def gpt_layer(get: Get, spec: Decoder, mixer: Attention) -> Flat:
    h, d = mixer.heads, spec.width
    weight, bias = get("attn.c_attn.weight").reshape(d, 3, h, -1), get("attn.c_attn.bias").reshape(3, h, -1)
    flat = {"mixer.out.weight": get("attn.c_proj.weight").reshape(h, -1, d)}
    for i, name in enumerate(("query", "key", "value")):
        flat |= {f"mixer.{name}.weight": weight[:, i], f"mixer.{name}.bias": bias[i]}
    names = {"mixer.out.bias": "attn.c_proj.bias"}
    for ours, theirs in {"ff.up": "mlp.c_fc", "ff.down": "mlp.c_proj"}.items():
        names |= {f"{ours}.{part}": f"{theirs}.{part}" for part in ("weight", "bias")}
    for ours, theirs in {"norms.mixer": "ln_1", "norms.ff": "ln_2"}.items():
        names |= {f"{ours}.scale": f"{theirs}.weight", f"{ours}.bias": f"{theirs}.bias"}
    return flat | rename(get, names)


# ---- GPT-NeoX (Pythia), Falcon, MPT: queries, keys and values in one matrix --------------------------------


def neox_spec(config: Any) -> Decoder:
    norm, heads, bias = LayerNorm(epsilon=config.layer_norm_eps), config.num_attention_heads, config.attention_bias
    return Decoder(
        vocab=config.vocab_size,
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        block=Block(
            mixer=Attention(heads=heads, kv_heads=heads, position=rope(config), bias=bias, output_bias=bias),
            ff=MLP(hidden=config.intermediate_size, activation=GELU(approximate=False), bias=True),
            norm=norm,
            residual=Parallel() if config.use_parallel_residual else PreNorm(),
        ),
        norm=norm,
        tied=config.tie_word_embeddings,
    )


def falcon_spec(config: Any) -> Decoder:
    norm = LayerNorm(epsilon=config.layer_norm_epsilon)
    kv_heads = 1 if config.multi_query else config.num_attention_heads
    mixer = Attention(heads=config.num_attention_heads, kv_heads=kv_heads, position=rope(config))
    return Decoder(
        vocab=config.vocab_size,
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        block=Block(
            mixer=mixer,
            ff=MLP(hidden=config.ffn_hidden_size, activation=GELU(approximate=False)),
            norm=norm,
            residual=SharedParallel(),
        ),
        norm=norm,
        tied=config.tie_word_embeddings,
    )


def mpt_spec(config: Any) -> Decoder:
    norm = LayerNorm(epsilon=config.layer_norm_epsilon, bias=False)
    mixer = Attention(heads=config.n_heads, kv_heads=config.n_heads, position=ALiBi())
    ff = MLP(hidden=config.expansion_ratio * config.d_model, activation=GELU(approximate=False))
    return Decoder(
        vocab=config.vocab_size,
        width=config.d_model,
        layers=config.n_layers,
        block=Block(mixer=mixer, ff=ff, norm=norm),
        norm=norm,
        tied=config.tie_word_embeddings,
    )


def by_head(fused: np.ndarray, mixer: Attention) -> list[np.ndarray]:
    """[H 3 P, ...] of MHA, head after head, as queries, keys and values [H P ...]."""
    split = fused.reshape(mixer.heads, 3, -1, *fused.shape[1:])
    return [split[:, i] for i in range(3)]


def queries_first(fused: np.ndarray, mixer: Attention) -> list[np.ndarray]:
    """[(H + 2 K) P, ...]: all queries, then keys, then values."""
    split = fused.reshape(mixer.heads + 2 * mixer.kv_heads, -1, *fused.shape[1:])
    return np.split(split, [mixer.heads, mixer.heads + mixer.kv_heads])


def fused_layer(names: dict[str, str], order: Callable[[np.ndarray, Attention], list[np.ndarray]]) -> Any:
    """names: our module -> theirs. Only the biases that the spec has are read."""

    def layer(get: Get, spec: Decoder, mixer: Attention) -> Flat:
        weights = order(get(names["qkv"] + ".weight"), mixer)
        flat = {f"mixer.{n}.weight": np.moveaxis(w, -1, 0) for n, w in zip(QKV, weights, strict=True)}
        if mixer.bias:
            biases = order(get(names["qkv"] + ".bias"), mixer)
            flat |= {f"mixer.{n}.bias": b for n, b in zip(QKV, biases, strict=True)}
        flat["mixer.out.weight"] = get(names["out"] + ".weight").T.reshape(mixer.heads, -1, spec.width)
        plain = {"mixer.out.bias": names["out"] + ".bias"} if mixer.output_bias else {}
        block = spec.pattern[0]
        for part in ("up", "down"):
            flat[f"ff.{part}.weight"] = get(names[part] + ".weight").T
            plain |= {f"ff.{part}.bias": names[part] + ".bias"} if block.ff.bias else {}  # type: ignore[union-attr]
        for norm in block.residual.norms(block.parts):
            plain[f"norms.{norm}.scale"] = names[norm] + ".weight"
            plain |= {f"norms.{norm}.bias": names[norm] + ".bias"} if block.norm.bias else {}  # type: ignore[union-attr]
        return flat | rename(get, plain)

    return layer


QKV = ("query", "key", "value")
NEOX = {"qkv": "attention.query_key_value", "out": "attention.dense", "up": "mlp.dense_h_to_4h",
        "down": "mlp.dense_4h_to_h", "mixer": "input_layernorm", "ff": "post_attention_layernorm"}  # fmt: skip
FALCON = {"qkv": "self_attention.query_key_value", "out": "self_attention.dense", "up": "mlp.dense_h_to_4h",
          "down": "mlp.dense_4h_to_h", "shared": "input_layernorm"}  # fmt: skip
MPT = {"qkv": "attn.Wqkv", "out": "attn.out_proj", "up": "ffn.up_proj", "down": "ffn.down_proj",
       "mixer": "norm_1", "ff": "norm_2"}  # fmt: skip


# ---- Llama, Mistral, Qwen3, Gemma 2 ------------------------------------------------------------------------


def rope(config: Any) -> RoPE:
    given = config.rope_parameters
    scalings: dict[str, Callable[[], Any]] = {
        "default": lambda: None,
        "linear": lambda: LinearScaling(factor=given["factor"]),
        "llama3": lambda: Llama3Scaling(
            factor=given["factor"],
            low_frequency_factor=given["low_freq_factor"],
            high_frequency_factor=given["high_freq_factor"],
            original_length=given["original_max_position_embeddings"],
        ),
        "yarn": lambda: YaRN(
            factor=given["factor"],
            original_length=given["original_max_position_embeddings"],
            beta_fast=given.get("beta_fast", 32.0),
            beta_slow=given.get("beta_slow", 1.0),
            attention_factor=given.get("attention_factor") or magnitude(given),
            truncate=given.get("truncate", True),
        ),
        "dynamic": lambda: DynamicNTK(factor=given["factor"], original_length=config.max_position_embeddings),
        "longrope": lambda: LongRoPE(
            short=tuple(given["short_factor"]),
            long=tuple(given["long_factor"]),
            factor=given.get("factor") or config.max_position_embeddings / given["original_max_position_embeddings"],
            original_length=given["original_max_position_embeddings"],
            attention_factor=given.get("attention_factor"),
        ),
        "proportional": lambda: ProportionalScaling(turned=share, factor=given.get("factor", 1.0)),
    }
    share, kind = given.get("partial_rotary_factor", 1.0), given["rope_type"]
    return RoPE(base=given["rope_theta"], fraction=1.0 if kind == "proportional" else share, scaling=scalings[kind]())


def magnitude(given: dict[str, Any]) -> float | None:
    """Of YaRN with two scales, where scores aren't multiplied by the second's square as in DeepSeek's models."""
    if not (given.get("mscale") and given.get("mscale_all_dim")):
        return None
    over, under = (0.1 * given[name] * math.log(given["factor"]) + 1 for name in ("mscale", "mscale_all_dim"))
    return over / under


def llama_spec(config: Any) -> Decoder:
    norm, bias = RMSNorm(epsilon=config.rms_norm_eps), getattr(config, "attention_bias", False)
    mixer = Attention(
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_width=None if config.head_dim * config.num_attention_heads == config.hidden_size else config.head_dim,
        position=rope(config),
        mask=Mask(window=getattr(config, "sliding_window", None)),
        qk_norm=norm if config.model_type == "qwen3" else None,
        bias=bias,
        output_bias=bias,
    )
    ff = GatedMLP(hidden=config.intermediate_size, activation=SiLU(), bias=getattr(config, "mlp_bias", False))
    return Decoder(
        vocab=config.vocab_size,
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        block=Block(mixer=mixer, ff=ff, norm=norm),
        norm=norm,
        tied=config.tie_word_embeddings,
    )


def gemma2_spec(config: Any) -> Decoder:
    norm = RMSNorm(epsilon=config.rms_norm_eps, zero_centered=True)
    assert config.layer_types[:2] == ["sliding_attention", "full_attention"]

    def block(window: int | None) -> Block:
        mixer = Attention(
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_width=config.head_dim,
            position=rope(config),
            mask=Mask(window=window),
            softcap=config.attn_logit_softcapping,
            scale=1 / math.sqrt(config.query_pre_attn_scalar),
        )
        ff = GatedMLP(hidden=config.intermediate_size, activation=GELU(approximate=True))
        return Block(mixer=mixer, ff=ff, norm=norm, residual=Sandwich())

    return Decoder(
        vocab=config.vocab_size,
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        block=(block(config.sliding_window), block(None)),
        norm=norm,
        tied=config.tie_word_embeddings,
        embed_scale=None,
        softcap=config.final_logit_softcapping,
    )


def llama_layer(norms: dict[str, str]) -> Any:
    """norms: our norm -> theirs."""

    def layer(get: Get, spec: Decoder, mixer: Attention) -> Flat:
        p, d, flat = mixer.width_of_head(spec.width), spec.width, {}
        for ours, theirs in {"query": "q_proj", "key": "k_proj", "value": "v_proj"}.items():
            flat[f"mixer.{ours}.weight"] = get(f"self_attn.{theirs}.weight").T.reshape(d, -1, p)
            if mixer.bias:
                flat[f"mixer.{ours}.bias"] = get(f"self_attn.{theirs}.bias").reshape(-1, p)
        flat["mixer.out.weight"] = get("self_attn.o_proj.weight").T.reshape(-1, p, d)
        names = {"mixer.out.bias": "self_attn.o_proj.bias"} if mixer.output_bias else {}
        for part in ("gate", "up", "down"):
            flat[f"ff.{part}.weight"] = get(f"mlp.{part}_proj.weight").T
            names |= {f"ff.{part}.bias": f"mlp.{part}_proj.bias"} if spec.pattern[0].ff.bias else {}  # type: ignore[union-attr]
        if mixer.qk_norm is not None:
            names |= {
                "mixer.query_norm.scale": "self_attn.q_norm.weight",
                "mixer.key_norm.scale": "self_attn.k_norm.weight",
            }
        names |= {f"norms.{ours}.scale": f"{theirs}.weight" for ours, theirs in norms.items()}
        return flat | rename(get, names)

    return layer


TWO_NORMS = {"mixer": "input_layernorm", "ff": "post_attention_layernorm"}
FOUR_NORMS = {"mixer": "input_layernorm", "mixer_out": "post_attention_layernorm",
              "ff": "pre_feedforward_layernorm", "ff_out": "post_feedforward_layernorm"}  # fmt: skip


def top(root: str, embedding: str, norm: str, *, bias: bool = True) -> dict[str, str]:
    names = {
        "embedding": f"{root}.{embedding}.weight",
        "norm.scale": f"{root}.{norm}.weight",
        "unembedding": "lm_head.weight",
    }
    return names | ({"norm.bias": f"{root}.{norm}.bias"} if bias else {})


LLAMA = Family(llama_spec, top("model", "embed_tokens", "norm", bias=False), "model.layers", llama_layer(TWO_NORMS))
GPT1_TOP = {"embedding": "transformer.tokens_embed.weight", "position.table": "transformer.positions_embed.weight"}
GPT2_TOP = top("transformer", "wte", "ln_f") | {"position.table": "transformer.wpe.weight"}
NEOX_TOP = top("gpt_neox", "embed_in", "final_layer_norm")
FAMILIES = {
    "openai-gpt": Family(gpt_spec, GPT1_TOP, "transformer.h", gpt_layer),
    "gpt2": Family(gpt_spec, GPT2_TOP, "transformer.h", gpt_layer),
    "gpt_neox": Family(neox_spec, NEOX_TOP, "gpt_neox.layers", fused_layer(NEOX, by_head)),
    "falcon": Family(
        falcon_spec, top("transformer", "word_embeddings", "ln_f"), "transformer.h", fused_layer(FALCON, queries_first)
    ),
    "mpt": Family(
        mpt_spec, top("transformer", "wte", "norm_f", bias=False), "transformer.blocks", fused_layer(MPT, queries_first)
    ),
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen3": LLAMA,
    "gemma2": Family(
        gemma2_spec, top("model", "embed_tokens", "norm", bias=False), "model.layers", llama_layer(FOUR_NORMS)
    ),
}
