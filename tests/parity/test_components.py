"""Single layers against torch and transformers."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.models.presets import PRESETS, preset
from lm.nn import GELU, ALiBi, LayerNorm, NTKScaling, RMSNorm, RoPE, SiLU, T5Bias
from lm.nn.feedforward import Activation
from lm.nn.norms import Norm

torch = pytest.importorskip("torch", reason="parity tests need torch: pip install 'lm[parity]'")
transformers = pytest.importorskip("transformers", reason="parity tests need transformers: pip install 'lm[parity]'")

from tests.parity.checks import spec_of  # noqa: E402

F = torch.nn.functional


def numbers(*shape: int, spread: float = 3.0) -> np.ndarray:
    return (spread * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("activation", "reference"),
    [
        (GELU(approximate=True), lambda x: F.gelu(x, approximate="tanh")),
        (GELU(approximate=False), F.gelu),
        (SiLU(), F.silu),
    ],
    ids=["gelu-tanh", "gelu", "silu"],
)
def test_activations(activation: Activation, reference: Any) -> None:
    x = np.linspace(-8, 8, 1001, dtype=np.float32)
    np.testing.assert_allclose(activation(jnp.asarray(x)), reference(torch.tensor(x)).numpy(), atol=2e-6)


@pytest.mark.parametrize("epsilon", [1e-6, 0.5])
@pytest.mark.parametrize("kind", [LayerNorm, RMSNorm])
@pytest.mark.parametrize("zero_centered", [False, True])
def test_norms(kind: type[LayerNorm] | type[RMSNorm], epsilon: float, zero_centered: bool) -> None:
    """The mean of the input is far from 0, and its spread differs between rows by orders of magnitude."""
    x = numbers(5, 16) * np.array([1e-2, 1e-1, 1, 10, 1e3], np.float32)[:, None] + 0.5
    spec: Norm = kind(epsilon=epsilon, bias=True, zero_centered=zero_centered)
    layer = spec.build(16, rngs=nnx.Rngs(0))
    scale, bias = numbers(16), numbers(16)[::-1].copy()
    layer.scale[...], layer.bias[...] = jnp.asarray(scale), jnp.asarray(bias)
    whole = torch.tensor(scale + 1 if zero_centered else scale)
    if kind is LayerNorm:
        expected = F.layer_norm(torch.tensor(x), (16,), whole, torch.tensor(bias), epsilon)
    else:
        expected = F.rms_norm(torch.tensor(x), (16,), whole, epsilon) + torch.tensor(bias)
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected.numpy(), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (8, 20), (64, 1000)])
def test_t5_buckets(bidirectional: bool, buckets: int, furthest: int) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    offset = np.arange(-1500, 1501)
    expected = T5Attention._relative_position_bucket(torch.tensor(offset), bidirectional, buckets, furthest).numpy()
    spec = T5Bias(buckets=buckets, max_distance=furthest, bidirectional=bidirectional)
    np.testing.assert_array_equal(spec.bucket(jnp.asarray(offset)), expected)


def test_t5_bias_of_a_layer() -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    config = transformers.T5Config(d_model=8, num_heads=3, d_kv=4, is_decoder=True)
    reference = T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    table = numbers(32, 3)
    reference.relative_attention_bias.weight.data = torch.tensor(table)
    layer = T5Bias().build(3, 4, rngs=nnx.Rngs(0))
    layer.table[...] = jnp.asarray(table)
    positions = jnp.arange(150)[None]
    with torch.no_grad():
        expected = reference.compute_bias(150, 150).numpy()
    np.testing.assert_array_equal(layer.bias(positions, positions), expected)


@pytest.mark.parametrize("heads", [1, 2, 8, 12, 71])
def test_alibi(heads: int) -> None:
    """BLOOM adds slope x key position, which differs from ours by a constant of each query: nothing to a softmax."""
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    length = 50
    theirs = build_alibi_tensor(torch.ones(1, length), heads, torch.float32).numpy().reshape(heads, 1, length)
    positions = jnp.arange(length)[None]
    bias = np.asarray(ALiBi().build(heads, 4, rngs=nnx.Rngs(0)).bias(positions, positions))[0]
    own = theirs - np.swapaxes(theirs, 1, 2)  # 0 at the query itself
    causal = np.tril(np.ones((length, length), bool))
    np.testing.assert_allclose(bias[:, causal], own[:, causal], atol=1e-5)


@pytest.mark.parametrize("stretch", [2.0, 5.0])
def test_ntk_frequencies(stretch: float) -> None:
    """transformers' dynamic form at a length where its base is that of the static one."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    given = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 1.0}
    config = transformers.LlamaConfig(
        hidden_size=64, num_attention_heads=2, max_position_embeddings=100, rope_parameters=given
    )
    theirs, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, torch.device("cpu"), seq_len=int(100 * stretch))
    ours = RoPE(base=1e4, scaling=NTKScaling(factor=stretch)).frequencies(32)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5)


PUBLISHED = {
    "gpt2-124m": ("GPT2", {}),
    "gpt2-1.5b": ("GPT2", {"n_embd": 1600, "n_layer": 48, "n_head": 25}),
    "pythia-1b": (
        "GPTNeoX",
        {
            "vocab_size": 50304,
            "hidden_size": 2048,
            "num_hidden_layers": 16,
            "num_attention_heads": 8,
            "intermediate_size": 8192,
        },
    ),
    "llama-7b": ("Llama", {}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_are_the_configs_of_transformers(name: str) -> None:
    """Where the library's own defaults are a published model, or are one but for its sizes."""
    kind, sizes = PUBLISHED[name]
    assert name in PRESETS
    assert spec_of(getattr(transformers, f"{kind}Config")(**sizes)) == preset(name)
