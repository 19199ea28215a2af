"""The training step: what it computes, that parts add up, and what it compiles."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from lm import sharding
from lm.config import lift, replace
from lm.models import Execution
from lm.nn import param
from lm.objectives import NextToken
from lm.train import AdamW, Constant, Cosine, Linear, Run, Training
from lm.train.step import Program, State, program
from tests.tiny import MODELS, made, packed

MODEL = replace(MODELS["gqa"], {"layers": 1, "softcap": 8.0})
BATCHES = [packed(rows=4, seed=seed) for seed in range(3)]
TRAINING = Training(steps=10, optimizer=AdamW(learning_rate=1e-2, eps=1e-3), schedule=Constant(), clip=None)


@functools.cache
def compiled(shape: Training) -> Program:
    return Program(MODEL, shape, sharding.layout())


def start(training: Training) -> State:
    """The program's initial state with wide weights."""
    state = compiled(lift(training)[0]).init(0)
    copies = {"params": made(MODEL)[1], **({"ema": made(MODEL)[1]} if training.ema else {})}
    return state._replace(**copies)


def trained(training: Training, batches: Any = tuple(BATCHES), state: State | None = None) -> tuple[State, list[Any]]:
    """The state after these batches, and each step's metrics."""
    shape, values = lift(training)
    made_program, found = compiled(shape), []
    state = start(training) if state is None else state
    for batch in batches:
        state, metrics = made_program.step(state, made_program.layout.put(batch), values)
        found.append(jax.device_get(metrics))
    return state, found


def assert_close(a: Any, b: Any, **limits: float) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **limits), a, b)


def assert_equal(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_differ(a: Any, b: Any) -> None:
    assert max(float(np.abs(x - y).max()) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)) > 1e-6


class TestMetrics:
    def test_against_numpy(self) -> None:
        z, smooth = 0.1, 0.2
        training = replace(TRAINING, {"objective": NextToken(z_loss=z, label_smoothing=smooth)})
        batch = BATCHES[0]
        graph, params = made(MODEL)
        model: Any = param.merge(graph, params)
        logits = np.asarray(model(jnp.asarray(batch["tokens"]), segments=jnp.asarray(batch["segments"])), np.float64)
        log_z = scipy.special.logsumexp(logits, axis=-1)
        log_p = logits - log_z[..., None]
        nats = -np.take_along_axis(log_p, batch["targets"][..., None], axis=-1)[..., 0]
        weights = batch["weights"]
        correct = logits.argmax(-1) == batch["targets"]
        total = (1 - smooth) * nats - smooth * log_p.mean(-1) + z * log_z**2
        state, (found,) = trained(training, [batch])
        for name, tokens in {"loss": nats, "accuracy": correct, "objective": total}.items():
            assert found[name] == pytest.approx((weights * tokens).sum() / weights.sum(), rel=1e-5), name
        assert 0 < weights.sum() < weights.size
        assert found["parameter_norm"] == pytest.approx(norm(state.params), rel=1e-5)
        change = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), state.params, params)
        assert found["update_norm"] == pytest.approx(norm(change), rel=1e-3)
        gradient = jax.tree.map(lambda m: m / 0.1, state.opt[0].mu)  # Adam's first moment after one step
        assert found["gradient_norm"] == pytest.approx(norm(gradient), rel=1e-5)

    def test_the_gradient_is_that_of_the_objective_per_token(self) -> None:
        batch, (graph, params) = BATCHES[0], made(MODEL)

        def objective(params: param.Params) -> jax.Array:
            module: Any = param.merge(graph, params)
            logits = module(jnp.asarray(batch["tokens"]), segments=jnp.asarray(batch["segments"]))
            nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.asarray(batch["targets"])[..., None], -1)[
                ..., 0
            ]
            return jnp.sum(nats * batch["weights"]) / jnp.sum(batch["weights"])

        state, _ = trained(TRAINING, [batch])
        expected = jax.jit(jax.grad(objective))(params)
        assert_close(jax.tree.map(lambda m: m / 0.1, state.opt[0].mu), expected, atol=1e-4, rtol=1e-3)

    def test_evaluation_sums_over_tokens(self) -> None:
        shape, values = lift(TRAINING)
        _, (first, *_) = trained(TRAINING)
        put = compiled(shape).layout.put
        sums = compiled(shape).evaluate(made(MODEL)[1], put(BATCHES[0]), values)
        assert float(sums.nats / sums.tokens) == pytest.approx(first["loss"], rel=1e-6)
        empty = {**BATCHES[0], "weights": np.zeros_like(BATCHES[0]["weights"])}
        assert float(compiled(shape).evaluate(made(MODEL)[1], put(empty), values).nats) == 0


class TestSeveralStepsInOneDispatch:
    TRAINING = Training(steps=8, ema=0.9)

    def advanced(self, sizes: tuple[int, ...]) -> tuple[State, dict[str, np.ndarray]]:
        """The state and metrics after dispatches of these sizes, in a program for four steps."""
        shape, values = lift(self.TRAINING)
        state, found, at = start(self.TRAINING), [], 0
        for size in sizes:
            batches = [BATCHES[i % len(BATCHES)] for i in range(at, at + size)]
            state, metrics = compiled(shape).advance(state, batches, values, together=4)
            found.append({name: np.asarray(value)[:size] for name, value in metrics.items()})
            at += size
        return state, jax.tree.map(lambda *parts: np.concatenate(parts), *found)

    def test_how_steps_are_divided_changes_no_bit(self) -> None:
        assert_equal(self.advanced((4, 1)), self.advanced((2, 3)))

    def test_they_are_the_steps_alone(self) -> None:
        state, metrics = self.advanced((4, 1))
        alone, found = trained(self.TRAINING, [BATCHES[i % len(BATCHES)] for i in range(5)])
        assert_close(state.params, alone.params, rtol=1e-4, atol=1e-6)
        assert_close(metrics, jax.tree.map(lambda *values: np.stack(values), *found), rtol=1e-4, atol=1e-6)

    def test_what_is_beyond_the_batches_is_zero(self) -> None:
        shape, values = lift(self.TRAINING)
        _, metrics = compiled(shape).advance(start(self.TRAINING), BATCHES[:1], values, together=4)
        assert not np.any(metrics["loss"][1:])


def norm(tree: Any) -> float:
    return float(np.sqrt(sum((np.asarray(leaf, np.float64) ** 2).sum() for leaf in jax.tree.leaves(tree))))


class TestParts:
    def test_accumulated_parts_are_the_whole_batch(self) -> None:
        whole, expected = trained(TRAINING)
        for parts in (2, 4):
            state, found = trained(replace(TRAINING, {"accumulate": parts}))
            assert_close(state.params, whole.params, atol=2e-5)
            for a, b in zip(found, expected, strict=True):
                assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
                assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-4)
        assert_differ(whole.params, made(MODEL)[1])

    def test_clipping_limits_the_norm_of_what_the_optimizer_sees(self) -> None:
        _, (free, *_) = trained(TRAINING, BATCHES[:1])
        limit = float(free["gradient_norm"]) / 4
        state, (found,) = trained(replace(TRAINING, {"clip": limit}), BATCHES[:1])
        assert found["gradient_norm"] == pytest.approx(free["gradient_norm"])  # reported before clipping
        assert norm(state.opt[0].mu) / 0.1 == pytest.approx(limit, rel=1e-4)
        unclipped, _ = trained(TRAINING, BATCHES[:1])
        high, _ = trained(replace(TRAINING, {"clip": 1e6}), BATCHES[:1])
        assert_close(high.params, unclipped.params, atol=1e-7)

    def test_the_average_follows_the_weights(self) -> None:
        training, state = replace(TRAINING, {"ema": 0.75}), None
        average = jax.tree.map(np.asarray, made(MODEL)[1])
        for batch in BATCHES:
            state, _ = trained(training, [batch], state)
            average = jax.tree.map(lambda e, p: 0.75 * e + 0.25 * np.asarray(p), average, state.params)
        assert state is not None
        assert_close(state.ema, average, atol=1e-6)
        assert_differ(state.ema, state.params)
        assert_close(state.params, trained(TRAINING)[0].params, atol=1e-6)
        assert trained(TRAINING)[0].ema == {}

    @pytest.mark.parametrize("schedule", [Cosine(warmup=2), Linear(final=0.5)])
    def test_the_rate_is_the_schedule_times_the_peak(self, schedule: Any) -> None:
        state, found = trained(replace(TRAINING, {"schedule": schedule}))
        expected = [1e-2 * float(schedule(step, 10)) for step in range(3)]
        assert [m["learning_rate"] for m in found] == pytest.approx(expected)
        assert int(state.step) == 3
        assert_differ(state.params, trained(TRAINING)[0].params)

    def test_the_state_is_donated(self) -> None:
        state = start(TRAINING)
        _, _ = trained(TRAINING, BATCHES[:1], state)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.params, state.opt)))


class TestCompilation:
    def test_runs_that_differ_in_numbers_share_one_executable(self) -> None:
        runs = [
            TRAINING,
            replace(TRAINING, {"optimizer.learning_rate": 1.0, "optimizer.weight_decay": 0, "steps": 99}),
            replace(TRAINING, {"optimizer.b2": 0.5, "objective.z_loss": 0.5, "objective.label_smoothing": 0.1}),
        ]
        shapes = {lift(training)[0] for training in runs}
        assert len(shapes) == 1
        shared = program(MODEL, shapes.pop(), sharding.layout())
        ends = []
        for seed, training in enumerate(runs):
            state = shared.init(seed)
            for batch in BATCHES[:2]:
                state, _ = shared.step(state, shared.layout.put(batch), lift(training)[1])
            ends.append(state.params)
        assert shared.step._cache_size() == shared.init._cache_size() == 1
        assert_differ(ends[0], ends[1])
        assert program(MODEL, lift(runs[1])[0], sharding.layout()) is shared

    def test_a_number_does_what_it_did_when_it_was_a_constant(self) -> None:
        training = replace(TRAINING, {"objective.z_loss": 0.3, "clip": 0.5, "ema": 0.5, "schedule": Cosine(warmup=3)})
        constant = Program(MODEL, training, sharding.layout())
        state = start(training)
        for batch in BATCHES:
            state, _ = constant.step(state, constant.layout.put(batch), {})
        assert_close(state.params, trained(training)[0].params, atol=1e-6)

    def test_init_scale_is_of_the_hidden_matrices_alone(self) -> None:
        made_program = compiled(lift(TRAINING)[0])
        once, twice = (made_program.init(0, scale).params for scale in (1.0, 2.0))
        scaled = set()
        for (path, one), two in zip(jax.tree.leaves_with_path(once), jax.tree.leaves(twice), strict=True):
            if not np.array_equal(one, two):
                scaled.add(jax.tree_util.keystr(path, simple=True, separator="."))
                np.testing.assert_array_equal(2 * one, two)
        hidden = ("mixer.query", "mixer.key", "mixer.value", "mixer.out", "ff.gate", "ff.up", "ff.down")
        assert scaled == {f"blocks.0.{name}.weight" for name in hidden}

    def test_the_same_run_twice_is_the_same_to_the_bit(self) -> None:
        assert_equal(trained(TRAINING)[0].params, trained(TRAINING)[0].params)
        init = compiled(lift(TRAINING)[0]).init
        assert_equal(init(5).params, init(5).params)
        assert_differ(init(5).params, init(6).params)


def test_one_batch_is_learned_by_heart() -> None:
    training = Training(steps=400, optimizer=AdamW(learning_rate=1e-2, weight_decay=0.0), schedule=Cosine(warmup=10))
    shape, values = lift(training)
    made_program = program(replace(MODEL, {"softcap": None}), shape, sharding.layout())
    batch = packed(rows=2, seed=3)
    rows = made_program.layout.put(batch)
    state, losses = made_program.init(0), []
    for _ in range(300):
        state, metrics = made_program.step(state, rows, values)
        losses.append(metrics["loss"])
    assert float(losses[0]) > 3
    assert float(losses[-1]) < 0.05


def test_the_abstract_state_is_the_states_own() -> None:
    training = replace(TRAINING, {"ema": 0.9})
    made_program = compiled(lift(training)[0])
    state, abstract = made_program.init(0), made_program.abstract_state()
    assert jax.tree.structure(state) == jax.tree.structure(abstract)
    jax.tree.map(
        lambda x, s: (x.shape, x.dtype, x.sharding) == (s.shape, s.dtype, s.sharding) or pytest.fail(), state, abstract
    )


def test_a_run_counts_its_tokens_and_flops() -> None:
    run = Run(model=MODEL, train=TRAINING)
    assert run.tokens == 10 * run.data.batch * run.data.length
    assert run.flops == 10 * run.data.batch * 3 * MODEL.cost(run.data.length).flops


def equations(jaxpr: Any) -> Iterator[Any]:
    """Every equation of a program, those of its inner programs included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.core.jaxprs_in_params(equation.params):
            yield from equations(inner)


class TestBfloat16:
    TRAINING = replace(TRAINING, {"execution": Execution(compute="bfloat16"), "ema": 0.9})

    def test_weights_averages_and_moments_stay_float32_and_losses_follow(self) -> None:
        state, half = trained(self.TRAINING)
        floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
        assert {x.dtype.name for x in floats} == {"float32"}
        _, full = trained(replace(self.TRAINING, {"execution": Execution()}))
        losses = [[float(m["loss"]) for m in found] for found in (half, full)]
        assert losses[0] != losses[1]
        np.testing.assert_allclose(*losses, rtol=2e-2)  # bfloat16 has 8 bits

    def test_updates_too_small_for_bfloat16_are_kept(self) -> None:
        tiny = replace(self.TRAINING, {"optimizer.learning_rate": 1e-5})
        state, _ = trained(tiny)
        assert_differ(jax.tree.map(lambda x: 1e3 * x, state.params), jax.tree.map(lambda x: 1e3 * x, made(MODEL)[1]))

    def test_norms_softmax_and_loss_are_computed_in_float32(self) -> None:
        shape, values = lift(self.TRAINING)
        program = compiled(shape)
        jaxpr = program.step.trace(start(self.TRAINING), program.layout.put(BATCHES[0]), values).jaxpr
        delicate = ("exp", "log", "rsqrt", "reduce_sum")
        found = [e for e in equations(jaxpr.jaxpr) if e.primitive.name in delicate]
        assert {e.primitive.name for e in found} == set(delicate)
        low = {e.primitive.name for e in found if e.invars[0].aval.dtype == jnp.bfloat16}
        assert not low
