"""Layers of attention against those of transformers: MLA, differential attention, norms of queries and keys."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.nn import MLA, AcrossHeads, Differential, Mixer, RMSNorm, RoPE, YaRN, gqa, param

torch = pytest.importorskip("torch", reason="parity tests need torch: pip install 'lm[parity]'")
transformers = pytest.importorskip("transformers", reason="parity tests need transformers: pip install 'lm[parity]'")

B, L, D = 2, 24, 32
EXACT = 1e-5  # absolute; the outputs are about 5 at most
X = np.random.default_rng(0).normal(size=(B, L, D)).astype(np.float32)
AT = np.broadcast_to(np.arange(L), (B, L))


def redrawn(layer: Any) -> dict[str, np.ndarray]:
    """Wide weights in a layer of torch, and what they are."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            noise = torch.randn_like(parameter)
            if parameter.ndim == 1:
                parameter += 0.3 * noise
            else:
                parameter.copy_(noise / parameter.shape[-1] ** 0.5)
    return {name: tensor.detach().numpy().copy() for name, tensor in layer.state_dict().items()}


def theirs(layer: Any, rotary: Any, config: Any) -> np.ndarray:
    """What a layer of torch makes of X, causal."""
    x, causal = torch.tensor(X), torch.full((L, L), -math.inf).triu(1)[None, None]
    with torch.no_grad():
        angles = rotary(config).forward(x, torch.tensor(AT))
        return layer.eval()(hidden_states=x, position_embeddings=angles, attention_mask=causal)[0].numpy()


def ours(spec: Mixer, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What our layer makes of X with these parameters by dotted path: in training, and token by token."""
    graph, shapes = param.split(nnx.eval_shape(lambda: spec.build(D, rngs=nnx.Rngs(0))))
    paths = jax.tree_util.tree_flatten_with_path(shapes)[0]
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    assert sorted(names) == sorted(weights)
    arrays = [jnp.asarray(weights[name]).reshape(s.shape) for name, (_, s) in zip(names, paths, strict=True)]
    params = jax.tree.unflatten(jax.tree.structure(shapes), arrays)

    @jax.jit
    def run(params: Any, x: jax.Array, at: jax.Array, cache: Any) -> Any:
        return param.merge(graph, params)(x, at, jnp.ones_like(at), cache)

    cache, found = param.merge(graph, params).init_cache(B, L, jnp.float32), []
    for i in range(L):
        y, cache = run(params, X[:, i : i + 1], AT[:, i : i + 1], cache)
        found.append(y)
    return {"training": np.asarray(run(params, X, AT, None)[0]), "decoding": np.concatenate(found, axis=1)}


def assert_equal(spec: Mixer, weights: dict[str, np.ndarray], expected: np.ndarray) -> None:
    assert 1 < np.abs(expected).max() < 20
    for form, found in ours(spec, weights).items():
        np.testing.assert_allclose(found, expected, atol=EXACT, rtol=0, err_msg=form)


NOPE, TURNED, VALUE, RANK, H = 6, 4, 5, 10, 3
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "rope_theta": 100.0}


def latent_rows(matrix: np.ndarray) -> np.ndarray:
    """Rows [.., P, ..] that are turned as pairs (0, 1), (2, 3), ..., in the order of ours: (0, P / 2), ..."""
    return np.concatenate([matrix[..., 0::2, :], matrix[..., 1::2, :]], axis=-2)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default", "rope_theta": 100.0},
        {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0},  # DeepSeek-V3
        {**YARN, "mscale": 0.707, "mscale_all_dim": 1.3, "beta_fast": 4.0},
        YARN,
    ],
    ids=["plain", "yarn, v3", "yarn, two scales", "yarn"],
)
@pytest.mark.parametrize("q_rank", [None, 7])
def test_mla(q_rank: int | None, rope: dict[str, Any]) -> None:
    from transformers.models.deepseek_v3 import modeling_deepseek_v3 as deepseek

    config = transformers.DeepseekV3Config(
        hidden_size=D, num_attention_heads=H, num_key_value_heads=H, q_lora_rank=q_rank, kv_lora_rank=RANK,
        qk_rope_head_dim=TURNED, qk_nope_head_dim=NOPE, v_head_dim=VALUE, rope_parameters=rope, attention_bias=True,
        attn_implementation="eager", max_position_embeddings=128,
    )  # fmt: skip
    layer = deepseek.DeepseekV3Attention(config, 0)
    state = redrawn(layer)
    scaling = None
    if rope["rope_type"] == "yarn":
        scaling = YaRN(
            factor=8.0,
            original_length=16,
            beta_fast=rope.get("beta_fast", 32.0),
            mscale=rope.get("mscale", 1.0),
            mscale_all_dim=rope.get("mscale_all_dim", 0.0),
        )
    spec = MLA(
        heads=H, kv_rank=RANK, q_rank=q_rank, nope_width=NOPE, rope_width=TURNED, value_width=VALUE,
        position=RoPE(base=100.0, scaling=scaling), norm=RMSNorm(epsilon=1e-6), bias=True, output_bias=True,
    )  # fmt: skip

    query = state["q_proj.weight" if q_rank is None else "q_b_proj.weight"].reshape(H, NOPE + TURNED, -1)
    query = np.concatenate([query[:, :NOPE], latent_rows(query[:, NOPE:])], axis=1)
    down, shift = state["kv_a_proj_with_mqa.weight"], state["kv_a_proj_with_mqa.bias"]
    up = state["kv_b_proj.weight"].reshape(H, NOPE + VALUE, RANK)
    weights = {
        "query.weight": query.transpose(2, 0, 1),
        "latent.weight": down[:RANK].T,
        "latent.bias": shift[:RANK],
        "latent_norm.scale": state["kv_a_layernorm.weight"],
        "key_rope.weight": latent_rows(down[RANK:]).T,
        "key_rope.bias": latent_rows(shift[RANK:, None])[:, 0],
        "key.weight": up[:, :NOPE].transpose(2, 0, 1),
        "value.weight": up[:, NOPE:].transpose(2, 0, 1),
        "out.weight": state["o_proj.weight"].T,
        "out.bias": state["o_proj.bias"],
    }
    if q_rank is not None:
        weights |= {
            "query_latent.weight": state["q_a_proj.weight"].T,
            "query_latent.bias": state["q_a_proj.bias"],
            "query_norm.scale": state["q_a_layernorm.weight"],
        }
    assert_equal(spec, weights, theirs(layer, deepseek.DeepseekV3RotaryEmbedding, config))


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_differential(kv_heads: int) -> None:
    from transformers.models.diffllama import modeling_diffllama as diffllama

    heads, p = 2, 8
    config = transformers.DiffLlamaConfig(
        hidden_size=D, num_attention_heads=2 * heads, num_key_value_heads=2 * kv_heads, rms_norm_eps=1e-5,
        attn_implementation="eager",
    )  # fmt: skip
    layer = diffllama.DiffLlamaAttention(config, layer_idx=3)
    state = redrawn(layer)
    spec = Differential(heads=heads, kv_heads=kv_heads, lambda_init=0.8 - 0.6 * math.exp(-0.9))
    value = state["v_proj.weight"].reshape(2, kv_heads, p, D).swapaxes(0, 1)  # halves of each value lie apart
    weights = {
        "query.weight": state["q_proj.weight"].T,
        "key.weight": state["k_proj.weight"].T,
        "value.weight": value.reshape(-1, D).T,
        "out.weight": state["o_proj.weight"].T,
        "norm.scale": np.ones(2 * p),
        **{name: state[name] for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")},
    }
    assert_equal(spec, weights, theirs(layer, diffllama.DiffLlamaRotaryEmbedding, config))


@pytest.mark.parametrize("family", ["Olmo2", "Qwen3"])
def test_norms_of_queries_and_keys(family: str) -> None:
    """Over the whole projection in OLMo 2, over each head in Qwen 3."""
    module = __import__(f"transformers.models.{family.lower()}.modeling_{family.lower()}", fromlist=["modeling"])
    config = getattr(transformers, f"{family}Config")(
        hidden_size=D, num_attention_heads=4, num_key_value_heads=2, head_dim=D // 4, rms_norm_eps=1e-2,
        attn_implementation="eager", rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    layer = getattr(module, f"{family}Attention")(config, 0)
    state, norm = redrawn(layer), RMSNorm(epsilon=1e-2)
    spec = gqa(4, 2, qk_norm=AcrossHeads(norm=norm) if family == "Olmo2" else norm)
    inside = "norm." if family == "Olmo2" else ""
    weights = {f"{n}.weight": state[f"{n[0]}_proj.weight"].T for n in ("query", "key", "value", "out")}
    weights |= {f"{n}_norm.{inside}scale": state[f"{n[0]}_norm.weight"] for n in ("query", "key")}
    assert_equal(spec, weights, theirs(layer, getattr(module, f"{family}RotaryEmbedding"), config))
