"""Attention to a cache in parts is the definition applied to the parts joined."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.nn import ALiBi, Mask, Strided, T5Bias
from lm.nn.kernels import attention_decode, attention_plain
from lm.nn.kernels.attention_decode import Slots
from lm.nn.kernels.platform import plain_forms

P = 6
CASES: dict[str, dict[str, Any]] = {
    "causal": {},
    "window": {"mask": Mask(window=5)},
    "window of one": {"mask": Mask(window=1)},
    "not causal": {"mask": Mask(causal=False)},
    "prefix": {"mask": Mask(prefix=True)},
    "sinks": {"mask": Mask(window=3, sinks=2)},
    "strided": {"mask": Mask(pattern=Strided(stride=3))},
    "narrow values": {"V": 2},
    "softcap": {"softcap": 2.0},
    "alibi": {"bias": ALiBi()},
    "t5": {"bias": T5Bias(buckets=8, max_distance=10)},
    "alibi, softcap, window": {"bias": ALiBi(), "softcap": 2.0, "mask": Mask(window=7)},
    "mha": {"K": 4},
    "mqa": {"K": 1},
    "mqa, batch 1": {"K": 1, "B": 1},
    "batch 1": {"B": 1},
    "one key a part": {"sizes": (1, 1)},
    "one part": {"sizes": (13,)},
    "three parts": {"sizes": (4, 11, 1)},
    "several queries": {"L": 3},
    "several queries, bias": {"L": 5, "bias": ALiBi(), "K": 4},
}


def drawn(B: int, K: int, L: int, sizes: tuple[int, ...], dtype: Any, V: int = P) -> tuple[jax.Array, list[Slots], Any]:
    """Queries at the last positions, parts whose slots are in no order, some empty, some of another segment or of the
    document's prefix, some of which lies after the queries."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), dtype)

    total, parts, start = sum(sizes), [], 0
    positions = np.stack([rng.permutation(total) for _ in range(B)])
    segments = rng.choice([0, 1, 1, 1, -1, 2], size=(B, total))
    for size in sizes:
        ids = (jnp.asarray(x[:, start : start + size], jnp.int32) for x in (positions, segments))
        parts.append(Slots(normal(B, K, P, size), normal(B, K, size, V), *ids))
        start += size
    at = jnp.broadcast_to(jnp.arange(total - L, total) - total // 3, (B, L))
    return normal(B, L, 4, P), parts, (at, jnp.ones((B, L), jnp.int32))


def both(case: dict[str, Any], dtype: Any = jnp.float32) -> tuple[jax.Array, jax.Array]:
    fields = {"B": 2, "K": 2, "L": 1, "sizes": (9, 4), "V": P, "mask": Mask(), "softcap": None, "bias": None} | case
    q, parts, (at, ones) = drawn(*(fields[name] for name in ("B", "K", "L", "sizes")), dtype, fields["V"])
    bias = fields["bias"] and fields["bias"].build(4, P, rngs=nnx.Rngs(0)).bias
    shared: dict[str, Any] = {"mask": fields["mask"], "scale": 0.4, "softcap": fields["softcap"], "bias": bias}
    found = attention_decode.attend(q, parts, q_positions=at, q_segments=ones, by_parts=True, **shared)
    k, v = (jnp.concatenate([getattr(part, n) for part in parts], axis) for n, axis in (("k", 3), ("v", 2)))
    expected = attention_plain.attend(
        q,
        k.transpose(0, 3, 1, 2),
        v.swapaxes(1, 2),
        q_positions=at,
        q_segments=ones,
        k_positions=jnp.concatenate([part.positions for part in parts], axis=1),
        k_segments=jnp.concatenate([part.segments for part in parts], axis=1),
        ordered=False,
        **shared,
    )
    return found, expected


@pytest.mark.parametrize("case", CASES)
def test_parts_are_their_join(case: str) -> None:
    found, expected = both(CASES[case])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert case == "one key a part" or np.abs(expected).max() > 0.1


def test_bfloat16_keeps_the_sums_in_float32() -> None:
    found, expected = both({"sizes": (300, 30), "mask": Mask(causal=False)}, jnp.bfloat16)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), expected.astype(jnp.float32), atol=0.02)


def test_a_query_that_sees_nothing_gives_zeros() -> None:
    q, parts, (at, ones) = drawn(2, 2, 1, (5, 3), jnp.float32)
    shared: dict[str, Any] = {"mask": Mask(), "q_positions": at, "q_segments": 7 * ones, "scale": 1.0}
    assert not np.any(attention_decode.attend(q, parts, by_parts=True, **shared))


def test_a_part_that_nobody_sees_changes_nothing() -> None:
    q, parts, (at, ones) = drawn(2, 2, 1, (5, 3), jnp.float32)
    shared: dict[str, Any] = {"mask": Mask(), "q_positions": at, "q_segments": ones, "scale": 1.0, "by_parts": True}
    large = parts[1]._replace(k=100 * parts[1].k, segments=0 * parts[1].segments)
    with_it = attention_decode.attend(q, [parts[0], large], **shared)
    np.testing.assert_allclose(with_it, attention_decode.attend(q, parts[:1], **shared), rtol=1e-6)


def test_the_plain_form_and_long_queries_join_the_parts() -> None:
    """The program says which form was taken: only joining concatenates keys."""

    def joins(L: int) -> bool:
        q, parts, (at, ones) = drawn(1, 2, L, (20, 4), jnp.float32)
        call = jax.make_jaxpr(
            lambda q: attention_decode.attend(q, parts, mask=Mask(), q_positions=at, q_segments=ones, scale=1.0)
        )
        return "1,2,6,24" in str(call(q))

    assert not joins(1) and joins(9)
    with plain_forms():
        assert joins(1)
