"""Layers in stages: what they compute is what one device computes, in the order that the schedule says."""

from __future__ import annotations

import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm import sharding
from lm.config import ConfigError, lift, replace
from lm.models import Decoder, Execution, Model
from lm.models.pipeline import Schedule, chunks, schedule
from lm.nn import LoadBalance, LossFree, SequenceBalance, param
from lm.objectives import SpanCorruption
from lm.sharding import ShardingError
from lm.train.step import Program
from tests.models.test_execution import equations
from tests.objectives.packed import BOTH, packed, prepare
from tests.sharding.helper import TRAINING, assert_sharded_equals_single, gradients, one_step, share_of_one_device
from tests.tiny import BLOCKS, VOCAB, made
from tests.tiny import packed as rows_of


def model(*names: str, layers: int = 4, **fields: Any) -> Decoder:
    """Of layers that are these blocks in turn."""
    pattern = tuple(BLOCKS[name] for name in names)
    return Decoder(vocab=VOCAB, width=16, layers=layers, block=pattern, **fields)


DENSE = model("gqa")
PATTERN = model("mla", "mamba-2")
# a table of positions that all layers share, a layer before the pipeline, and two chunks of layers on each stage
ROUND = model("t5", layers=5, first=(BLOCKS["gqa"],))
READER = replace(BOTH, {"encoder.vocab_multiple": 2, "decoder.vocab_multiple": 2})
LOSSES = (LoadBalance(), LossFree(), SequenceBalance())
EXPERTS = model("moe, sigmoid, shared", layers=2)
EXPERTS = replace(EXPERTS, {"block": (replace(EXPERTS.pattern[0], {"ff.losses": LOSSES}),)})
SCANNED = replace(TRAINING, {"execution": Execution(layers="scan")})  # half the time to compile


class TestSchedule:
    @pytest.mark.parametrize("sizes", [(1, 3, 1), (2, 4, 1), (4, 8, 1), (4, 2, 1), (2, 4, 2), (4, 8, 2), (2, 2, 4)])
    def test_everything_is_done_once_and_what_it_needs_just_before(self, sizes: tuple[int, int, int]) -> None:
        plan = Schedule(*sizes)
        done: dict[tuple[int, int], int] = {}
        microbatch, repeat, busy = plan.work()
        assert microbatch.shape == (plan.iterations, plan.stages)
        assert microbatch.min() >= 0 and microbatch.max() < plan.microbatches and repeat.max() < plan.repeats
        for t, s in np.argwhere(busy):
            chunk = repeat[t, s] * plan.stages + s
            key = int(microbatch[t, s]), int(chunk)
            assert key not in done
            done[key] = int(t)
        assert len(done) == plan.microbatches * plan.stages * plan.repeats
        # what a stage gives is at the next one an iteration later, the last one's at the first
        assert all(done[m, chunk - 1] == t - 1 for (m, chunk), t in done.items() if chunk)

    def test_the_bubble(self) -> None:
        for plan, iterations, bubble in (
            (Schedule(4, 8), 11, 3 / 11),
            (Schedule(4, 8, 2), 19, 3 / 19),
            (Schedule(1, 5), 5, 0),
        ):
            assert (plan.iterations, plan.bubble) == (iterations, bubble)
            assert 1 - plan.work()[2].mean() == pytest.approx(bubble)

    @pytest.mark.parametrize(
        ("mesh", "rows", "microbatches"),
        [
            ("stage=4", 64, 16),
            ("stage=4", 7, 7),
            ("stage=4", 17, 1),
            ("stage=4,data=2", 12, 6),
            ("stage=4,data=2", 5, 5),  # of a batch that isn't split every device has all rows
            ("stage=2,repeats=2", 10, 2),
            ("stage=2,repeats=2", 24, 8),
            ("stage=4,microbatches=3", 12, 3),
        ],
    )
    def test_how_many_microbatches(self, mesh: str, rows: int, microbatches: int) -> None:
        assert schedule(sharding.layout(mesh), rows).microbatches == microbatches


@pytest.mark.parametrize(
    ("spec", "mesh", "remat"),
    [
        (DENSE, "stage=4,data=2", "none"),
        (PATTERN, "stage=2,data=2,tensor=2,microbatches=2", "none"),
        (DENSE, "stage=2,fsdp=4", "none"),
        (ROUND, "stage=2,fsdp=2,tensor=2,repeats=2", "offload"),
        (EXPERTS, "stage=2,data=2,expert=2", "none"),
    ],
    ids=["dense", "pattern, tensor", "dense, fsdp", "interleaved", "experts"],
)
def test_stages_are_what_one_device_is(spec: Decoder, mesh: str, remat: str) -> None:
    assert_sharded_equals_single(spec, mesh, replace(SCANNED, {"execution.remat": remat}))


def test_what_experts_say_is_of_the_whole_batch() -> None:
    """Balance is no mean over microbatches, and the fullest expert of each isn't that of all."""
    found, expected = (one_step(EXPERTS, mesh, SCANNED)[2] for mesh in ("stage=2,data=2,expert=2", ""))
    assert set(found) == set(expected) and {"moe/max_load", "moe/balance", "moe/sequence_balance"} < set(found)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


def test_every_stage_holds_its_own_layers_and_their_state() -> None:
    program, state, _ = one_step(DENSE, "stage=4,data=2", SCANNED)
    for tree in (state.params["blocks"], state.opt[0].mu["blocks"], state.opt[0].nu["blocks"]):
        assert share_of_one_device(tree) == 1 / 4
    assert "stage" in str(program.params_sharding["blocks"]["0"]["ff"]["up"]["weight"].spec)


@functools.cache
def spans(mesh: str, spec: Model) -> tuple[Any, Any]:
    """Loss and gradients of an encoder-decoder that fills spans in."""
    objective = SpanCorruption(rate=0.3, span=2.0, sentinels=4)
    shape, values = lift(replace(SCANNED, {"objective": objective}))
    program = Program(spec, shape, sharding.layout(mesh))
    batch = prepare(objective, spec, packed(rows=8, length=24))
    state, metrics = program.step(program.init(0), program.layout.put(batch), values)
    return jax.device_get((metrics["loss"], gradients(state)))


@pytest.mark.parametrize(
    "mesh", ["stage=2,data=2,tensor=2", "data=8", "fsdp=8", "data=2,fsdp=2,tensor=2", "data=2,expert=4"]
)
def test_an_encoder_and_a_decoder_that_reads_it(mesh: str) -> None:
    (loss, grads), (expected, single) = spans(mesh, READER), spans("", READER)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)

    def same(found: jax.Array, one: jax.Array) -> None:
        assert np.abs(one).max() > 0
        np.testing.assert_allclose(found, one, rtol=0, atol=1e-5)

    jax.tree.map(same, grads, single)


def communication(text: str) -> list[tuple[str, str, str]]:
    """Of a compiled program: the kind, the line, and what it comes from."""
    kinds = "all-gather|all-reduce|reduce-scatter|collective-permute|all-to-all"
    found = []
    for line in text.splitlines():
        if kind := re.search(rf"= .+? ({kinds})(?:-start)?\(", line):
            source = re.search(r'op_name="([^"]*)"', line)
            found.append((kind[1], line, source[1] if source else ""))
    return found


def test_activations_go_from_stage_to_stage_and_weights_stay() -> None:
    program, _, _ = one_step(DENSE, "stage=4,data=2", SCANNED)
    batch = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in rows_of(rows=8).items()}
    compiled = program.step.lower(program.abstract_state(), batch, lift(SCANNED)[1]).compile()
    found = communication(compiled.as_text() or "")
    loops = [each for each in found if "while/body" in each[2]]
    # forward one, backward two: the derivative of a rotation is a shift and what it leaves out
    assert [kind for kind, *_ in loops if kind != "all-reduce"] == ["collective-permute"] * 3
    forward = next(line for kind, line, source in loops if "transpose" not in source)
    pairs = re.findall(r"\{(\d+),(\d+)\}", forward.split("source_target_pairs=")[1].split("}}")[0] + "}")
    assert {(int(a), int(b)) for a, b in pairs} == {(i, (i + 2) % 8) for i in range(8)}  # two rows of devices
    assert all("[4,2]<=[8]" in line for kind, line, _ in loops if kind == "all-reduce")  # gradients, over data alone
    for kind, line, _ in found:  # and nothing gathers or exchanges what isn't a whole batch's hidden states
        assert kind not in ("all-to-all", "reduce-scatter")
        assert kind != "all-gather" or re.search(r"= f32\[\d+,\d+,12,16\]", line), line


@pytest.mark.parametrize("mesh", ["stage=4", "stage=4,repeats=2", "stage=2,repeats=4"])
def test_layers_of_interleaved_stages_are_exchanged_and_never_gathered(mesh: str) -> None:
    where = sharding.layout(mesh)
    plan = Schedule(where.stages, where.stages, where.repeats)
    over = jax.sharding.NamedSharding(where.mesh, jax.sharding.PartitionSpec("stage"))
    layers = jax.device_put(jnp.arange(16.0).reshape(16, 1), over)
    compiled = jax.jit(lambda leaf: chunks(leaf, plan, where), in_shardings=over).lower(layers).compile()
    parts = compiled(layers)
    assert {shard.data.size for shard in parts.addressable_shards} == {16 // where.stages}
    order = np.asarray(parts).swapaxes(0, 1).ravel()
    np.testing.assert_array_equal(order, np.arange(16))
    kinds = {kind for kind, *_ in communication(compiled.as_text() or "")}
    assert kinds <= {"all-to-all", "collective-permute"} and bool(kinds) == (where.repeats > 1)


@pytest.mark.parametrize(("mesh", "iterations"), [("stage=2", 5), ("stage=2,repeats=2", 9)])
def test_weights_are_not_kept_for_each_iteration(mesh: str, iterations: int) -> None:
    spec = replace(DENSE, {"width": 32})
    graph, params = made(spec)
    where = sharding.layout(mesh)

    def loss(params: Any) -> jax.Array:
        with sharding.use(where):
            module: Any = param.merge(graph, params)
            return jnp.sum(module.hidden(jnp.zeros((4, 3), jnp.int32), execution=Execution(remat="full")).h)

    loops = [e for e in equations(jax.make_jaxpr(jax.grad(loss))(params).jaxpr) if e.primitive.name == "scan"]
    loops = [e for e in loops if e.params["length"] == iterations]
    assert len(loops) == 2  # forward and backward
    stacked = [v.aval.shape for e in loops for v in e.outvars[e.params["num_carry"] :]]
    streams = [shape for shape in stacked if shape[-2:] == (3, 32)]
    assert len(streams) >= 3  # what comes in, what goes out, what is read again
    losses = [shape for shape in stacked if shape not in streams]
    assert all(math.prod(shape[2:]) <= 2 for shape in losses), f"of a stage's two layers at most: {losses}"


class TestErrors:
    @pytest.mark.parametrize(
        ("spec", "mesh", "said"),
        [
            (model("gqa", layers=5), "stage=2", "layers=5 can't be divided into stage=2; make them a multiple of 2"),
            (model("gqa", "mha", layers=6), "stage=2", "make them a multiple of 4"),
            (DENSE, "stage=4,repeats=2", "can't be divided into stage=4 x repeats=2; make them a multiple of 8"),
            (replace(ROUND, {"layers": 4}), "stage=2", "make them after the first 1 a multiple of 2"),
            (replace(DENSE, {"shared_layers": True}), "stage=2", "shared_layers are in every stage at once"),
        ],
    )
    def test_layers_that_can_not_be_divided(self, spec: Decoder, mesh: str, said: str) -> None:
        with pytest.raises(ShardingError, match=re.escape(said)):
            Program(spec, TRAINING, sharding.layout(mesh))

    @pytest.mark.parametrize(
        ("mesh", "rows", "said"),
        [
            ("stage=2,microbatches=3", 8, "8 rows can't be cut into microbatches=3; give a divisor of 8"),
            ("stage=2,data=2,microbatches=8", 8, "8 rows over 2 devices can't be cut into microbatches=8"),
            ("stage=4,repeats=2,microbatches=2", 8, "give a divisor of 8 that is a multiple of stage=4"),
            ("stage=4,repeats=2", 6, "repeats=2 needs 4 microbatches at least, and 6 rows give none such"),
        ],
    )
    def test_rows_that_can_not_be_cut(self, mesh: str, rows: int, said: str) -> None:
        with pytest.raises(ShardingError, match=re.escape(said)):
            schedule(sharding.layout(mesh), rows)

    @pytest.mark.parametrize(
        ("mesh", "said"),
        [
            ("data=2,microbatches=2", "microbatches=2 is of a pipeline: give the mesh stage=N as well"),
            ("stage=4,repeats=3", "repeats=3 must divide stage=4 or be a multiple of it"),
            ("stage=4,micro=2", "the mesh has no axis 'micro'"),
            ("stage=4,repeats=0", "must be of the form repeats=N with N at least 1"),
        ],
    )
    def test_a_mesh_that_can_not_be(self, mesh: str, said: str) -> None:
        with pytest.raises((ConfigError, ShardingError), match=re.escape(said)):
            sharding.layout(mesh)
