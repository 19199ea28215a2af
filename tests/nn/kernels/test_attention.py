"""Every implementation of attention equals the definition, in values and gradients, and keeps the mask."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.nn.kernels import attention, attention_blocked
from lm.nn.kernels.attention import attend, choose
from lm.nn.kernels.attention_request import KernelError, Request
from lm.nn.mask import Mask, positions_of
from lm.nn.sparse import BlockSparse, Fixed, Strided
from tests.masks import sees

quick_jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)  # compiles in half the time

CAUSAL = Mask()


@dataclasses.dataclass(frozen=True)
class Case:
    mask: Mask = CAUSAL
    length: int = 37
    heads: int = 4
    kv_heads: int = 2
    width: int = 8
    value_width: int | None = None
    softcap: float | None = None
    bias: str | None = None
    ordered: bool = True
    shifted: int = 0  # keys before the first query, as with a cache; not ordered
    long: bool = False  # computed as a row too long to be done at once

    @property
    def name(self):
        return ",".join(f"{k}={v}" for k, v in vars(self).items() if v != getattr(Case(), k)) or "causal"


CASES = [
    Case(),
    Case(length=1),
    Case(length=9, kv_heads=4),
    Case(length=131, kv_heads=1),
    Case(mask=Mask(window=5), length=131),
    Case(mask=Mask(causal=False), long=True),
    Case(mask=Mask(causal=False, window=4), length=131, ordered=False),
    Case(mask=Mask(causal=False, window=4), length=131),
    Case(softcap=1.5, length=131),
    Case(softcap=1.5, length=131, long=True),
    Case(bias="table", length=131),
    Case(bias="alibi", softcap=2.0, mask=Mask(window=7), long=True),
    Case(mask=Mask(prefix=True), length=131),
    Case(mask=Mask(prefix=True, window=9), long=True),
    Case(mask=Mask(window=5, sinks=2), length=131),
    Case(mask=Mask(window=4, pattern=Strided(stride=7)), length=131, kv_heads=1),
    Case(mask=Mask(pattern=Strided(stride=3, count=4)), length=131, softcap=2.0),
    Case(mask=Mask(causal=False, pattern=Fixed(stride=5, summary=2)), bias="table"),
    Case(mask=Mask(causal=False, sinks=1, pattern=BlockSparse(size=4, near=0, random=1)), length=131),
    Case(mask=Mask(prefix=True, window=3, sinks=1), length=11, shifted=30, ordered=False),
    Case(value_width=5, length=131),
    Case(value_width=11, length=131, bias="alibi"),
    Case(length=11, shifted=30, ordered=False),
    Case(length=32, shifted=30, ordered=False, long=True),
    Case(length=2, shifted=30, ordered=False),
]


def inputs(case: Case, seed: int = 0):
    """Arrays of a case. Row 0 holds three documents and padding; row 1 is padding only when the row is ordered."""
    rng = np.random.default_rng(seed)
    B, S = 2, case.length + case.shifted
    normal = functools.partial(rng.standard_normal, dtype=np.float32)
    q = normal((B, case.length, case.heads, case.width))
    k, v = (normal((B, S, case.kv_heads, width)) for width in (case.width, case.value_width or case.width))
    edges = np.array([S // 4, S // 2 + 1, S - S // 8])
    segments = 1 + (np.arange(S)[:, None] >= edges).sum(1)
    segments = np.stack([np.where(segments == 4, 0, segments), np.zeros(S)]).astype(np.int32)
    k_positions = np.asarray(positions_of(jnp.asarray(segments)), np.int32)
    segments = np.where(k_positions < S // 6, -segments, segments)  # each document has a prefix, read by few masks
    q_segments, q_positions = segments[:, case.shifted :].copy(), k_positions[:, case.shifted :]
    if case.shifted:
        q_segments[0, -1] = 77  # sees no key at all
    ids = dict(q_positions=q_positions, k_positions=k_positions, q_segments=q_segments, k_segments=segments)
    table = normal((case.heads, 16))
    return (q, k, v, table), ids


def bias_of(case: Case, table):
    """A callable bias; "table" learns one value a head and distance, "alibi" a slope a head."""
    if case.bias is None:
        return None

    def bias(q_positions, k_positions):
        distance = jnp.abs(q_positions[:, :, None] - k_positions[:, None, :])
        if case.bias == "alibi":
            return -table[:, :1, None][None] * distance[:, None]
        return jnp.moveaxis(table[:, jnp.minimum(distance, 15)], 0, 1)

    return bias


def run(case: Case, q, k, v, table, ids, implementation=None, scale=0.3):
    options = dict(mask=case.mask, softcap=case.softcap, ordered=case.ordered, scale=scale)
    q, k, v, table, ids = jax.tree.map(jnp.asarray, (q, k, v, table, ids))
    return attend(q, k, v, bias=bias_of(case, table), **ids, **options, implementation=implementation)


def naive(case: Case, q, k, v, table, ids, scale=0.3):
    """The definition in NumPy, one query and head at a time, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros((*q.shape[:3], v.shape[3]))
    bias = bias_of(case, table)
    added = 0.0 if bias is None else np.asarray(bias(ids["q_positions"], ids["k_positions"]), np.float64)
    added = np.broadcast_to(added, (q.shape[0], q.shape[2], q.shape[1], k.shape[1]))
    queries, keys = (np.stack([ids[f"{n}_positions"], ids[f"{n}_segments"]], axis=-1).tolist() for n in "qk")
    rows = zip(queries, keys, strict=True)
    allowed = np.array([[[sees(case.mask, query, key) for key in of] for query in row] for row, of in rows])
    for b, i, h in itertools.product(*map(range, q.shape[:3])):
        kv = h // (q.shape[2] // k.shape[2])
        seen = allowed[b, i]
        if not seen.any():
            continue
        scores = scale * k[b, seen, kv] @ q[b, i, h]
        if case.softcap is not None:
            scores = case.softcap * np.tanh(scores / case.softcap)
        scores = scores + added[b, h, i, seen]
        probs = np.exp(scores - scores.max())
        out[b, i, h] = probs / probs.sum() @ v[b, seen, kv]
    return out


def close(got, expected, what=""):
    scale = max(float(np.abs(expected).max()), 1e-3)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * scale, err_msg=what)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_implementations_equal_the_definition(case, monkeypatch):
    arrays, ids = inputs(case)
    shape = (*arrays[0].shape[:3], arrays[2].shape[3])
    probe = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)

    def both(implementation, *arrays):
        out, pull = jax.vjp(lambda *a: run(case, *a, ids, implementation), *arrays)
        return out, pull(probe)

    if case.long:
        monkeypatch.setattr(attention_blocked, "SHORT", 0)
        monkeypatch.setattr(attention_blocked, "CHUNK", 1)

    @quick_jit
    def everything(*arrays):
        return both("plain", *arrays), both("blocked", *arrays)

    (expected, right_gradients), (out, gradients) = everything(*arrays)
    close(expected, naive(case, *arrays, ids), "plain against NumPy")
    close(out, expected, "blocked")
    assert case.bias is None or np.abs(right_gradients[3]).max() > 0
    for part, gradient, right in zip(("dq", "dk", "dv", "dbias"), gradients, right_gradients, strict=True):
        close(gradient, right, part)


@pytest.mark.parametrize(
    "kind", [Case(length=131), Case(length=131, mask=Mask(window=5), bias="table")], ids=lambda c: c.name
)
@pytest.mark.parametrize("implementation", ["plain", "blocked"])
def test_nothing_flows_from_later_tokens_other_documents_or_beyond_the_window(kind, implementation):
    (q, k, v, table), ids = inputs(kind)
    seen = np.asarray(
        kind.mask.allowed(*(jnp.asarray(ids[n]) for n in ("q_positions", "k_positions", "q_segments", "k_segments")))
    )

    @quick_jit
    def influence(k, v, table):
        """[queries, keys]: how much a query's output moves with each key and value, row 0."""
        pick = lambda k, v, i: run(kind, q, k, v, table, ids, implementation)[0, i].sum()  # noqa: E731
        dk, dv = jax.lax.map(lambda i: jax.grad(pick, argnums=(0, 1))(k, v, i), jnp.arange(kind.length))
        return jnp.abs(dk[:, 0]).sum((-1, -2)) + jnp.abs(dv[:, 0]).sum((-1, -2))

    moved = np.asarray(influence(k, v, table))
    assert np.all(moved[~seen[0]] == 0)
    assert np.all(moved[seen[0]] > 0)


def test_bfloat16_stays_near_float32():
    case = Case(length=131)
    arrays, ids = inputs(case)
    half = [jnp.asarray(x, jnp.bfloat16) for x in arrays]
    out = quick_jit(lambda *a: run(case, *a, ids, "blocked"))(*half)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(np.float32), naive(case, *arrays, ids), atol=0.05)


def test_splash_equals_the_definition():
    """Interpreted: two documents and padding, a window, capped, grouped heads."""
    case = Case(mask=Mask(window=50), length=128, softcap=2.0, width=128, heads=2, kv_heads=1)
    arrays, ids = inputs(case)

    @quick_jit
    def both(*arrays):
        def loss(name, *arrays):
            out = run(case, *arrays, ids, name, scale=0.1)
            return jnp.sum(jnp.sin(out)), out

        return {
            n: jax.grad(functools.partial(loss, n), argnums=(0, 1, 2), has_aux=True)(*arrays)
            for n in ("plain", "splash")
        }

    results = both(*arrays)
    for got, expected in zip(*map(jax.tree.leaves, (results["splash"], results["plain"])), strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(got, expected, atol=1e-4 * scale)


@pytest.mark.parametrize("mask", [Mask(), Mask(causal=False), Mask(causal=False, window=9)], ids=str)
def test_splash_has_our_masks(mask):
    from lm.nn.kernels.attention_splash import _by_index

    segments = jnp.ones((1, 128), jnp.int32)
    positions = positions_of(segments)
    np.testing.assert_array_equal(_by_index(mask, 128)[:, :], mask.allowed(positions, positions, segments, segments)[0])


@pytest.mark.parametrize(
    "mask", [Mask(), Mask(window=3), Mask(window=90), Mask(causal=False, window=70), Mask(causal=False)], ids=str
)
def test_blocks_cover_what_the_mask_allows(mask):
    L = 300
    covered = np.zeros((L, L), int)
    for block in attention_blocked.blocks(mask, L, L, True):
        covered[block.start : block.stop, block.low : block.high] += 1
    segments = jnp.ones((1, L), jnp.int32)
    positions = positions_of(segments)
    allowed = np.asarray(mask.allowed(positions, positions, segments, segments)[0])
    assert np.all(covered[allowed] == 1) and covered.max() == 1
    assert mask == Mask(causal=False) or covered.mean() < 0.75  # something is skipped


def test_long_rows_stay_bounded_in_memory():
    """Forward and backward at 4,096 tokens take less than half of one L x S array of scores."""
    B, L, H, P = 1, 4096, 4, 16
    q = jax.ShapeDtypeStruct((B, L, H, P), jnp.float32)
    ids = jax.ShapeDtypeStruct((B, L), jnp.int32)

    def loss(q, k, v, positions, segments):
        names = dict(q_positions=positions, k_positions=positions, q_segments=segments, k_segments=segments)
        return attend(q, k, v, mask=Mask(causal=False), scale=1.0, **names, implementation="blocked").sum()

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(q, q, q, ids, ids).compile()
    memory = compiled.memory_analysis()
    assert memory is not None and memory.temp_size_in_bytes < B * H * L * L * 4 / 2


REQUEST = Request(
    mask=Mask(),
    dtype="bfloat16",
    batch=2,
    queries=256,
    keys=256,
    heads=4,
    kv_heads=2,
    width=64,
    value_width=64,
    bias=False,
    softcap=None,
    ordered=True,
)


def on(monkeypatch, backend):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)


@pytest.mark.parametrize(
    ("backend", "changes", "expected"),
    [
        ("cpu", {}, "blocked"),
        ("tpu", {}, "splash"),
        ("tpu", {"softcap": 30.0}, "splash"),
        ("tpu", {"bias": True}, "blocked"),
        ("tpu", {"queries": 200, "keys": 200}, "blocked"),
        ("gpu", {}, "cudnn"),
        ("gpu", {"mask": Mask(window=9)}, "cudnn"),
        ("gpu", {"mask": Mask(prefix=True)}, "cudnn"),
        ("gpu", {"mask": Mask(window=9, sinks=1)}, "cudnn"),
        ("tpu", {"mask": Mask(prefix=True)}, "blocked"),
        ("tpu", {"mask": Mask(window=9, sinks=1)}, "blocked"),
        ("tpu", {"mask": Mask(pattern=Strided(stride=3))}, "blocked"),
        ("gpu", {"dtype": "float32"}, "blocked"),
        ("gpu", {"softcap": 30.0}, "blocked"),
        ("gpu", {"bias": True}, "blocked"),
        ("gpu", {"queries": 255, "keys": 255}, "blocked"),
        ("gpu", {"queries": 1, "ordered": False}, "blocked"),
        ("gpu", {"value_width": 32}, "blocked"),
        ("some new chip", {}, "blocked"),
    ],
)
def test_the_platform_chooses(backend, changes, expected, monkeypatch):
    on(monkeypatch, backend)
    monkeypatch.setattr(attention.attention_cudnn, "_failure", lambda *args: None)  # a GPU where cuDNN works
    request = dataclasses.replace(REQUEST, **changes)
    assert choose(request) == expected
    if expected == "blocked" and backend in ("gpu", "tpu"):
        fused = attention.PREFERENCE[backend][0]
        with pytest.raises(KernelError, match=f"'{fused}' can't do this: .+"):
            choose(request, fused)


def test_without_a_usable_cudnn_the_blocked_form_runs_and_says_so_once(monkeypatch):
    on(monkeypatch, "gpu")
    attention.attention_cudnn._failure.cache_clear()
    with pytest.warns(RuntimeWarning, match="cuDNN isn't usable .* falls back to 'blocked'") as warned:
        assert choose(REQUEST) == "blocked"
        assert choose(REQUEST) == "blocked"
    assert len(warned) == 1
    attention.attention_cudnn._failure.cache_clear()


def test_wrong_calls_say_what_is_wrong():
    case = Case(length=4)
    arrays, ids = inputs(case)
    with pytest.raises(KernelError, match="there is no attention 'flash'; there are: plain, blocked"):
        run(case, *arrays, ids, "flash")
    with pytest.raises(KernelError, match="needs an NVIDIA GPU"):
        run(case, *arrays, ids, "cudnn")
    with pytest.raises(KernelError, match="length divisible by 128, not 4"):
        run(case, *arrays, ids, "splash")
    q, k, v, table = arrays
    with pytest.raises(KernelError, match="K dividing H"):
        run(case, q[:, :, :3], k, v, table, ids)
    with pytest.raises(KernelError, match="promised ordered rows, but has 3 queries and 4 keys"):
        run(case, q[:, :3], k, v, table, {n: x[:, :3] if n[0] == "q" else x for n, x in ids.items()})
