"""Decoders give the logits and gradients of transformers' models with the same weights.

Weights are drawn wide, and biases and norms moved from their initial 0 and 1: at the usual initialisation a scale or a
bias that is missing doesn't show.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.models import Decoder, DecoderModel
from lm.nn.param import merge, split
from tests.parity.mapping import params_of, spec_of

torch = pytest.importorskip("torch", reason="parity tests need torch: pip install 'lm[parity]'")
transformers = pytest.importorskip("transformers", reason="parity tests need transformers: pip install 'lm[parity]'")

LOGITS = 5e-5  # absolute; the logits are about 6 at most
GRADIENTS = 3e-5  # of the largest absolute value of a tensor, or of 1 where that is smaller
VOCAB, BATCH, LENGTH = 61, 2, 40
quick = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiling is what takes the time

SIZES = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
NO_DROPOUT = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
GPT = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": LENGTH, **NO_DROPOUT}
LLAMA = {**SIZES, "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64}


def rope(kind: str, theta: float = 500.0, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **more}}


def neox(share: float, **more: Any) -> tuple[str, dict[str, Any]]:
    return "GPTNeoX", {**SIZES, "intermediate_size": 128, **rope("default", partial_rotary_factor=share), **more}


def llama(**more: Any) -> tuple[str, dict[str, Any]]:
    return "Llama", {**LLAMA, **rope("default"), **more}


MPT = {"vocab_size": VOCAB, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": LENGTH}
GEMMA2 = {
    **LLAMA, **rope("default"), "num_hidden_layers": 3, "head_dim": 16, "sliding_window": 8,
    "query_pre_attn_scalar": 24, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0,
    "hidden_activation": "gelu_pytorch_tanh",
    "pad_token_id": None,  # torch gives the embedding of padding no gradient
}  # fmt: skip
YARN = {"factor": 4.0, "original_max_position_embeddings": 16}
FACTORS = {
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.5, 1.8, 2.2, 2.5],
    "long_factor": [1.0, 1.2, 1.6, 2.5, 4.0, 8.0, 16.0, 32.0],
}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt1": ("OpenAIGPT", GPT),
    "gpt2": ("GPT2", {**GPT, "n_inner": 40, "layer_norm_epsilon": 1e-2}),
    "pythia": neox(0.25, num_attention_heads=2),
    "neox-sequential": neox(1.0, use_parallel_residual=False, attention_bias=False, tie_word_embeddings=True),
    "falcon": ("Falcon", {**SIZES, **rope("default"), "multi_query": True, "parallel_attn": True}),
    "mpt": ("Mpt", MPT),
    "llama-gqa": llama(rms_norm_eps=1e-2),
    "llama-mqa": llama(num_key_value_heads=1, tie_word_embeddings=True),
    "llama-mha-biases": llama(num_key_value_heads=4, attention_bias=True, mlp_bias=True, head_dim=12),
    "mistral-window": ("Mistral", {**LLAMA, **rope("default"), "sliding_window": 7}),
    "qwen3-qk-norm": ("Qwen3", {**LLAMA, **rope("default"), "head_dim": 16}),
    "gemma2": ("Gemma2", GEMMA2),
}

STRETCHED: dict[str, dict[str, Any]] = {
    "linear": rope("linear", factor=3.0),
    "llama3": rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
    ),
    "yarn": rope("yarn", **YARN),
    "yarn-betas": rope("yarn", beta_fast=4.0, beta_slow=0.5, **YARN),
    "yarn-attention-factor": rope("yarn", attention_factor=1.7, **YARN),
    "yarn-two-scales": rope("yarn", mscale=0.7, mscale_all_dim=1.3, **YARN),
    "yarn-between-pairs": rope("yarn", truncate=False, beta_fast=4.0, **YARN),
    "dynamic": {**rope("dynamic", factor=3.0), "max_position_embeddings": 16},
    "dynamic-within": {**rope("dynamic", factor=3.0), "max_position_embeddings": LENGTH},
    "longrope": rope("longrope", original_max_position_embeddings=16, **FACTORS),
    "longrope-within": rope("longrope", original_max_position_embeddings=LENGTH, **FACTORS),
    "longrope-attention-factor": rope(
        "longrope", original_max_position_embeddings=16, factor=9.0, attention_factor=1.4, **FACTORS
    ),
    "proportional": rope("proportional", partial_rotary_factor=0.25, factor=2.0),
}


def reference(kind: str, fields: dict[str, Any]) -> Any:
    """A transformers model with wide random weights."""
    config = getattr(transformers, f"{kind}Config")(**fields)
    name = {"OpenAIGPT": "OpenAIGPTLMHeadModel", "GPT2": "GPT2LMHeadModel"}.get(kind, f"{kind}ForCausalLM")
    torch.manual_seed(0)
    model = getattr(transformers, name)._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            if parameter.ndim == 1:
                parameter += 0.3 * noise
            else:
                parameter.copy_(1.5 * noise / parameter.shape[-1] ** 0.5)
    return model


def arrays(tensors: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy().copy() for name, tensor in tensors.items()}


def ours(model: Any, spec: Decoder) -> tuple[Any, dict[str, Any]]:
    """The graph of our model, and the reference's weights as its parameters, checked to be of the same shapes."""
    graph, shapes = split(nnx.eval_shape(lambda: spec.build(rngs=nnx.Rngs(0))))
    params = params_of(model.config.model_type, spec, arrays(dict(model.state_dict())))
    assert jax.tree.map(lambda a: a.shape, params) == jax.tree.map(lambda a: a.shape, shapes)
    return graph, params


def some_tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCAB, (BATCH, LENGTH))


def assert_close(ours: Any, theirs: np.ndarray, tolerance: float, what: str) -> None:
    error = np.max(np.abs(np.asarray(ours) - theirs))
    assert error <= tolerance, f"{what} differs by {error:.1e}, where the largest value is {np.max(np.abs(theirs)):.1e}"


@pytest.mark.parametrize("name", CASES)
def test_logits_and_gradients(name: str) -> None:
    model = reference(*CASES[name])
    spec = spec_of(model.config)
    graph, params = ours(model, spec)
    tokens = some_tokens()

    expected = model(torch.tensor(tokens), use_cache=False).logits
    log_probs = torch.log_softmax(expected[:, :-1], -1)
    torch.gather(log_probs, -1, torch.tensor(tokens[:, 1:, None])).sum().neg().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}

    @quick
    def run(params: Any) -> tuple[jax.Array, Any]:
        def loss(params: Any) -> tuple[jax.Array, jax.Array]:
            logits = merge(graph, params)(jnp.asarray(tokens))
            chosen = jnp.take_along_axis(jax.nn.log_softmax(logits[:, :-1]), tokens[:, 1:, None], axis=-1)
            return -jnp.sum(chosen), logits

        (_, logits), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return logits, gradient

    logits, gradient = run(params)
    assert_close(logits, expected.detach().numpy(), LOGITS, "logits")
    wanted = params_of(model.config.model_type, spec, arrays(gradients))
    assert jax.tree.structure(gradient) == jax.tree.structure(wanted)
    for (path, got), want in zip(jax.tree.leaves_with_path(gradient), jax.tree.leaves(wanted), strict=True):
        assert_close(got, want, GRADIENTS * max(1.0, np.max(np.abs(want))), f"gradient of {jax.tree_util.keystr(path)}")


@pytest.mark.parametrize("name", STRETCHED)
def test_stretched_rope(name: str) -> None:
    model = reference(*llama(num_hidden_layers=1, head_dim=16, **STRETCHED[name]))
    graph, params = ours(model, spec_of(model.config))
    tokens = some_tokens()
    with torch.no_grad():
        expected = model(torch.tensor(tokens), use_cache=False).logits.numpy()
    assert_close(quick(lambda p: merge(graph, p)(jnp.asarray(tokens)))(params), expected, LOGITS, "logits")


def test_packed_documents_are_the_documents_alone() -> None:
    """Two documents in a row give what the reference gives for each of them."""
    model = reference(*llama())
    graph, params = ours(model, spec_of(model.config))
    tokens = some_tokens()[:1]
    segments = np.repeat([1, 2], [13, LENGTH - 13])[None]
    packed: DecoderModel = merge(graph, jax.tree.map(jnp.asarray, params))
    logits = packed(jnp.asarray(tokens), segments=jnp.asarray(segments))
    with torch.no_grad():
        alone = [model(torch.tensor(part), use_cache=False).logits.numpy() for part in np.split(tokens, [13], axis=1)]
    assert_close(logits, np.concatenate(alone, axis=1), LOGITS, "logits")
