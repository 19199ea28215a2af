"""Attention split over a mesh equals the definition, whatever is split: rows, heads or a row's own tokens."""

import collections
import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm import sharding
from lm.nn.kernels import attention, attention_piece, attention_ring
from lm.nn.kernels.attention_heads import read_heads
from lm.nn.mask import Mask, positions_of
from lm.nn.relative import Bias
from lm.sharding import ShardingError
from tests.masks import MASKS

quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

IDS = ("q_positions", "k_positions", "q_segments", "k_segments")
CAUSAL = Mask()


@dataclasses.dataclass(frozen=True)
class Case:
    mask: Mask = CAUSAL
    mesh: str = "sequence=4"
    rules: str = "sp"
    rows: int = 2
    length: int = 16
    keys: int | None = None  # of a context that is read; None: the queries' own row
    heads: int = 4
    kv_heads: int = 2
    softcap: float | None = None
    bias: bool = False
    scores: int = attention_piece.SCORES  # at once

    @property
    def name(self) -> str:
        return ",".join(f"{k}={v}" for k, v in vars(self).items() if v != getattr(Case(), k)) or "causal"


def packed(rng: np.random.Generator, rows: int, length: int) -> np.ndarray:
    """Documents of random lengths with prefixes, and padding at the end of the last row."""
    segments = 1 + np.sort(rng.integers(0, 4, (rows, length)), axis=1)
    starts = np.asarray(positions_of(jnp.asarray(segments))) < rng.integers(0, 5, (rows, 1))
    segments = np.where(starts, -segments, segments)
    segments[-1, -3:] = 0
    return segments.astype(np.int32)


def inputs(case: Case) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """q, k, v and a table of biases by head and distance; positions and segments."""
    rng = np.random.default_rng(0)
    S = case.keys or case.length
    shapes = (case.length, case.heads, 8), (S, case.kv_heads, 8), (S, case.kv_heads, 6)
    arrays = [rng.standard_normal((case.rows, *shape), dtype=np.float32) for shape in shapes]
    segments = packed(rng, case.rows, case.length)
    k_segments = segments if case.keys is None else packed(rng, case.rows, S)
    ids = segments, k_segments, *(np.asarray(positions_of(jnp.asarray(s)), np.int32) for s in (segments, k_segments))
    table = rng.standard_normal((case.heads, 8), dtype=np.float32)
    return [*arrays, table], dict(zip(("q_segments", "k_segments", "q_positions", "k_positions"), ids, strict=True))


def bias_of(table: jax.Array) -> Bias:
    def bias(q_positions: jax.Array, k_positions: jax.Array) -> jax.Array:
        distance = jnp.abs(q_positions[:, :, None] - k_positions[:, None, :])
        return jnp.moveaxis(table[:, jnp.minimum(distance, 7)], 0, 1)

    return bias


def run(case: Case, *arrays: jax.Array, ids: dict[str, np.ndarray], implementation: str | None = None) -> jax.Array:
    q, k, v, table = arrays
    ids = jax.tree.map(jnp.asarray, ids)
    told = {"mask": case.mask, "softcap": case.softcap, "scale": 0.4, "ordered": case.keys is None}
    bias = bias_of(table) if case.bias else None
    return attention.attend(q, k, v, bias=bias, **ids, **told, implementation=implementation)  # type: ignore[arg-type]


def assert_equals_the_definition(case: Case) -> None:
    arrays, ids = inputs(case)
    probe = np.random.default_rng(1).standard_normal((*arrays[0].shape[:3], 6), dtype=np.float32)
    where = sharding.layout(case.mesh, case.rules)

    def pulled(implementation: str | None, *arrays: jax.Array) -> list[jax.Array]:
        out, pull = jax.vjp(functools.partial(run, case, ids=ids, implementation=implementation), *arrays)
        return [out, *pull(probe)]

    @quick_jit
    def everything(*arrays: jax.Array) -> list[list[jax.Array]]:
        with sharding.use(where):
            split = pulled(None, *arrays)
        return [split, pulled("plain", *arrays)]

    names = ("out", "dq", "dk", "dv", "dbias")
    for name, found, expected in zip(names, *everything(*arrays), strict=True):
        size = float(np.abs(expected).max())
        assert size > 0 or name == "dbias"
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(size, 1e-3), err_msg=name)
    assert (size > 0) == case.bias


RING = [Case(mask=mask, bias=i % 3 == 0, softcap=1.5 if i % 4 == 1 else None) for i, mask in enumerate(MASKS.values())]


@pytest.mark.parametrize("case", RING, ids=MASKS)
def test_a_ring_with_every_mask(case: Case) -> None:
    assert_equals_the_definition(case)


OTHERS = [
    Case(mesh="sequence=2,tensor=4", length=12, kv_heads=2, bias=True),  # two devices for each key head
    Case(mesh="sequence=2,tensor=2", length=10, heads=6, kv_heads=3),  # a device's heads aren't whole groups, no zigzag
    Case(mesh="data=2,sequence=2,tensor=2", kv_heads=1, mask=Mask(causal=False)),
    Case(keys=24, mask=Mask(causal=False), kv_heads=4),  # of an encoder
    Case(length=32, scores=2**6, bias=True, softcap=2.0),  # few scores at once
    Case(length=15),  # not split
    Case(rules="sp_ulysses", kv_heads=4, bias=True),
    Case(rules="sp_ulysses", kv_heads=2, mask=Mask(window=3)),
    Case(rules="sp_ulysses", mesh="data=2,sequence=2,tensor=2", kv_heads=1, bias=True, softcap=1.5),
    Case(rules="sp_ulysses", mesh="sequence=3,tensor=2", length=12, heads=18, kv_heads=3),
    Case(rules="sp_ulysses", keys=24, mask=Mask(causal=False)),
]


@pytest.mark.parametrize("case", OTHERS, ids=lambda case: case.name)
def test_other_shapes_and_meshes(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_piece, "SCORES", case.scores)
    assert_equals_the_definition(case)


@pytest.mark.parametrize("rules", ["sp", "sp_ulysses"])
def test_nothing_flows_between_documents_of_different_devices(rules: str) -> None:
    """The second document ends where the third device's tokens begin; the others end inside a device's."""
    case = Case(rules=rules)
    arrays, ids = inputs(case)
    document = np.repeat([1, 2, 3], (5, 3, 8))
    for name in ("q_segments", "k_segments"):
        ids[name] = np.stack([document] * 2).astype(np.int32)
    for name in ("q_positions", "k_positions"):
        ids[name] = np.asarray(positions_of(jnp.asarray(ids["q_segments"])))
    with sharding.use(sharding.layout(case.mesh, rules)):
        pull = quick_jit(jax.vjp(functools.partial(run, case, ids=ids), *arrays)[1])
    for number in (1, 2, 3):
        probe = np.where(document[:, None, None] == number, np.ones((2, 16, 4, 6), np.float32), 0)
        moved = [np.abs(x).sum((0, 2, 3)) for x in pull(probe)[1:3]]
        for by_token in moved:
            assert np.all(by_token[document != number] == 0)
        assert np.all(moved[1][document == number] > 0)


def one_row(lengths: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Ids of a row of documents of these lengths."""
    segments = np.repeat(np.arange(1, len(lengths) + 1), lengths)[None].astype(np.int32)
    positions = np.asarray(positions_of(jnp.asarray(segments)), np.int32)
    return dict(zip(IDS, (positions, positions, segments, segments), strict=True))


@pytest.mark.parametrize(
    ("mask", "documents", "pieces", "pairs"),
    [
        (Mask(), (32,), [9, 9, 9, 9], 32 * 33 // 2 // 4),  # of 2 x 4 pieces: 3, then 2 at each of 3 steps
        (Mask(), (8, 8, 8, 8), [3, 3, 3, 3], None),  # a document is two pieces, which see no other
        (Mask(window=5), (32,), [1, 2, 2, 2], None),  # its own part and the one before
        (Mask(causal=False), (8, 24), [1, 3, 3, 3], None),
    ],
    ids=str,
)
def test_every_device_reads_the_same_and_nothing_in_vain(
    mask: Mask, documents: tuple[int, ...], pieces: list[int], pairs: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted as the program runs: pieces that a device reads, and pairs of a query and a key that it sees there."""
    case = Case(mask=mask, length=32, rows=1)
    arrays, _ = inputs(case)
    ids, found = one_row(documents), {"pieces": [0] * 4, "pairs": [0] * 4}
    read = attention_ring.read

    def counted(static: object, bias: object, piece: attention_piece.Piece, consts: list[jax.Array]) -> object:
        def count(device: np.ndarray, seen: np.ndarray) -> None:
            found["pieces"][int(device)] += 1
            found["pairs"][int(device)] += int(seen)

        q, k = piece.q_ids, piece.k_ids
        seen = mask.allowed(q[..., 0], k[..., 0], q[..., 1], k[..., 1]).sum()
        jax.debug.callback(count, jax.lax.axis_index("sequence"), seen)
        return read(static, bias, piece, consts)  # type: ignore[arg-type]

    monkeypatch.setattr(attention_ring, "read", counted)
    with sharding.use(sharding.layout(case.mesh)):
        jax.block_until_ready(quick_jit(functools.partial(run, case, ids=ids))(*arrays))
    jax.effects_barrier()
    seen = np.asarray(mask.allowed(*(jnp.asarray(ids[name]) for name in IDS)))
    assert found["pieces"] == pieces
    assert sum(found["pairs"]) == seen.sum()
    assert pairs is None or found["pairs"] == [pairs] * 4


def collectives(case: Case) -> dict[str, set[str]]:
    """Of forward and backward pass, what is sent how: the types of the arrays by the name of the operation."""
    where = sharding.layout(case.mesh, case.rules)
    arrays, ids = inputs(case)
    table = jnp.asarray(arrays[3])
    split = jax.sharding.NamedSharding(where.mesh, jax.P(None, "sequence"))

    def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return jnp.sum(run(case, q, k, v, table, ids=ids) ** 2)

    with sharding.use(where):
        grad = jax.grad(loss, argnums=(0, 1, 2))
        text = quick_jit(grad, in_shardings=split, out_shardings=split).lower(*arrays[:3]).compile().as_text()
    assert text is not None
    found: dict[str, set[str]] = collections.defaultdict(set)
    for kind, name in re.findall(r"= \(?(\w+)\[.* (all-gather|all-to-all|all-reduce|collective-permute)\(", text):
        found[name].add(kind)
    return found


def test_a_ring_passes_keys_on_and_ulysses_changes_places() -> None:
    ring = collectives(Case())
    assert "f32" in ring["collective-permute"]
    assert "f32" not in ring["all-gather"] and not ring["all-to-all"]
    ulysses = collectives(Case(rules="sp_ulysses", kv_heads=4))
    assert "f32" in ulysses["all-to-all"]
    assert "f32" not in ulysses["all-gather"] | ulysses["collective-permute"]


def test_what_a_ring_keeps_for_its_derivative_grows_with_the_row_alone() -> None:
    """Not with the number of devices, as it would if every step kept the keys that it saw."""

    def kept(mesh: str) -> int:
        case = Case(mesh=mesh, length=64)
        arrays, ids = inputs(case)
        with sharding.use(sharding.layout(mesh)):
            pull = jax.eval_shape(lambda *a: jax.vjp(functools.partial(run, case, ids=ids), *a)[1], *arrays)
        return sum(x.size for x in jax.tree.leaves(pull))

    assert kept("sequence=8") <= 1.1 * kept("sequence=2")


def test_too_few_heads_for_ulysses_are_refused() -> None:
    case = Case(rules="sp_ulysses", mesh="sequence=4,tensor=2")
    arrays, ids = inputs(case)
    with (
        sharding.use(sharding.layout(case.mesh, case.rules)),
        pytest.raises(ShardingError, match="2 of 4 heads on each tensor shard can't be split 4 ways over a row"),
    ):
        jax.eval_shape(functools.partial(run, case, ids=ids), *arrays)


def test_a_fused_kernel_runs_on_each_device_for_its_rows_and_heads() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(2, 128, heads, 16)), jnp.float32) for heads in (4, 1, 1))
    ids = {name: jnp.concatenate([jnp.asarray(x)] * 2) for name, x in one_row((50, 78)).items()}
    attend = functools.partial(attention.attend, mask=Mask(), scale=0.3, ordered=True, **ids)
    where = sharding.layout("data=2,tensor=2")
    with sharding.use(where):
        traced = quick_jit(functools.partial(attend, implementation="splash")).trace(q, k, v)
    (mapped,) = [e for e in traced.jaxpr.eqns if e.primitive.name == "shard_map"]
    shapes = {x.aval.shape for x in mapped.params["jaxpr"].invars}
    assert shapes >= {(1, 128, 2, 16), (1, 128, 1, 16), (1, 128)}
    found = traced.lower().compile()(q, k, v)
    np.testing.assert_allclose(found, attend(q, k, v, implementation="plain"), rtol=0, atol=1e-5)


def test_key_heads_that_some_query_heads_read() -> None:
    for heads, kv_heads, ways in [(8, 8, 4), (8, 2, 4), (8, 1, 2), (12, 3, 2), (12, 4, 6), (18, 6, 2)]:
        own = heads // ways
        for first in range(0, heads, own):
            read = read_heads(heads, kv_heads, first, own)
            wanted = [head // (heads // kv_heads) for head in range(first, first + own)]
            assert np.repeat(read, own // len(read)).tolist() == wanted
