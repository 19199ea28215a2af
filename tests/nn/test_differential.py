"""Differential attention against its definition, and the guide that takes it for an example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import lm
from lm.config import ConfigError
from lm.nn import ALiBi, Differential, LayerNorm, Mask, mha, param
from lm.nn.kernels import attention_plain
from tests.tiny import packed

B, L, D = 2, 9, 16
X = jnp.asarray(np.random.default_rng(1).normal(size=(B, L, D)), jnp.float32)
BATCH = packed(rows=B, length=L)
AT, IDS = jnp.asarray(BATCH["positions"]), jnp.asarray(BATCH["segments"])


def layer_of(spec: Differential) -> Any:
    graph, shapes = param.split(nnx.eval_shape(lambda: spec.build(D, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(0)
    return param.merge(graph, jax.tree.map(lambda s: jnp.asarray(0.5 * rng.normal(size=s.shape), jnp.float32), shapes))


@pytest.mark.parametrize(
    "spec",
    [
        Differential(heads=4, kv_heads=2),
        Differential(heads=2, kv_heads=2, head_width=6, position=ALiBi(), mask=Mask(window=3), lambda_init=0.2),
        Differential(heads=2, kv_heads=1, norm=LayerNorm(epsilon=0.1)),
    ],
    ids=["gqa", "alibi, window", "layer norm"],
)
def test_the_definition(spec: Differential) -> None:
    layer = layer_of(spec)
    H, K = spec.heads, spec.kv_heads
    q, k = (layer.position.rotate(project(X), AT) for project in (layer.query, layer.key))
    ids: dict[str, Any] = {"q_positions": AT, "k_positions": AT, "q_segments": IDS, "k_segments": IDS}
    ids |= {"mask": spec.mask, "bias": layer.position.bias, "scale": layer.head_width**-0.5, "softcap": None}
    maps = [
        attention_plain.probabilities(q_i, k_i, **ids)
        for q_i, k_i in ((q[:, :, :H], k[:, :, :K]), (q[:, :, H:], k[:, :, K:]))
    ]
    q1, k1, q2, k2 = (np.asarray(getattr(layer, f"lambda_{n}")[...]) for n in ("q1", "k1", "q2", "k2"))
    weight = np.exp(q1 @ k1) - np.exp(q2 @ k2) + spec.lambda_init
    values = np.repeat(np.asarray(layer.value(X)), H // K, axis=2)
    read = np.einsum("BHLS,BSHP->BLHP", maps[0] - weight * maps[1], values)
    y = layer.out((1 - spec.lambda_init) * layer.norm(jnp.asarray(read, jnp.float32)))
    real = BATCH["segments"] > 0
    np.testing.assert_allclose(layer(X, AT, IDS)[0][real], y[real], atol=2e-4)
    assert abs(weight) > 0.1 and np.std(y) > 0.1


def test_it_starts_where_the_paper_does() -> None:
    layer: Any = Differential(heads=2, kv_heads=2).build(64, rngs=nnx.Rngs(0))
    assert abs(float(layer.weight()) - 0.8) < 0.3
    assert [layer.lambda_q1.shape, layer.query.weight.shape, layer.value.weight.shape] == [
        (16,),
        (64, 4, 16),
        (64, 2, 32),
    ]


def test_half_the_heads_cost_the_parameters_of_attention() -> None:
    found, usual = Differential(heads=4, kv_heads=4).cost(64, 50), mha(8).cost(64, 50)
    assert found.params - usual.params == 4 * 8 + 16  # lambda, the norm
    assert found.cache == usual.cache


def test_misfits_are_refused() -> None:
    with pytest.raises(ConfigError, match="kv_heads=3 must divide heads=4"):
        Differential(heads=4, kv_heads=3)
    with pytest.raises(ConfigError, match="2 x heads=3 must divide width=8"):
        Differential(heads=3, kv_heads=1).cost(8, 1)
    with pytest.raises(ConfigError, match="lambda_init=1"):
        Differential(heads=4, kv_heads=4, lambda_init=1.0)


def test_the_guide_is_true() -> None:
    """docs/adding_a_mixer.md: one file of the library knows this mixer, and one line hands its name on."""
    root = Path(lm.__file__).parent
    named = {str(p.relative_to(root)) for p in root.rglob("*.py") if "ifferential" in p.read_text(encoding="utf-8")}
    assert named == {"nn/differential.py", "nn/__init__.py"}
    lines = (root / "nn/__init__.py").read_text(encoding="utf-8").splitlines()
    assert sum("ifferential" in line for line in lines) == 2  # the import, and its name in __all__
    guide = (root.parent / "docs/adding_a_mixer.md").read_text(encoding="utf-8")
    for path in ("lm/nn/differential.py", "lm/nn/__init__.py", "tests/tiny.py", "tests/nn/test_differential.py"):
        assert path in guide and (root.parent / path).exists(), path
    for test in ("test_causality", "test_cost", "test_decode", "test_no_dead_field"):
        assert test in guide and list((root.parent / "tests").rglob(f"{test}.py")), test
