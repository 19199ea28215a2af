"""The maximal update parametrisation: what it changes and what it leaves, and that it does what it is for."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm import sharding
from lm.config import ConfigError, lift, replace
from lm.data import Data
from lm.models import Decoder
from lm.models.widen import widened
from lm.nn import MLP, Block, Mask, RMSNorm, gqa, mha, mqa, param, swiglu
from lm.objectives import NextToken
from lm.train import Adafactor, AdamW, Constant, Lion, Muon, MuP, Run, Standard, Training, mup
from lm.train.coordinates import BOUND, CoordinateCheck, coordinate_check
from lm.train.parametrization import at_width
from lm.train.step import Program
from tests.tiny import LENGTH, MODELS, VOCAB, made, packed

BASE = Decoder(vocab=VOCAB, width=16, layers=2, block=Block(mixer=mha(2), ff=swiglu(24)))
TRAINING = Training(steps=8, optimizer=AdamW(learning_rate=0.01), schedule=Constant())
RUN = Run(model=BASE, train=TRAINING, data=Data(length=LENGTH, batch=2))
WIDE = at_width(RUN, 64)
BATCHES = [packed(rows=4, seed=seed) for seed in range(8)]


def compiled(run: Run) -> Program:
    return Program(run.model, lift(run.train)[0], sharding.layout())


def trained(run: Run, steps: int = 3) -> Any:
    program = compiled(run)
    state = program.init(run.seed)
    for batch in BATCHES[:steps]:
        state, _ = program.step(state, program.layout.put(batch), lift(run.train)[1])
    return state


class TestWhatItChanges:
    @pytest.mark.parametrize("heads", ["more", "wider"])
    @pytest.mark.parametrize("changes", [{}, {"tied": False, "embed_scale": None, "block.mixer.head_width": 8}])
    def test_nothing_at_the_base_width(self, heads: Any, changes: dict[str, Any]) -> None:
        run = replace(RUN, {f"model.{path}": value for path, value in changes.items()})
        same = mup(run, base_width=run.model.width, heads=heads)
        assert same.model == run.model and same.train.parametrization == MuP(base_width=16, heads=heads)
        jax.tree.map(np.testing.assert_array_equal, trained(same), trained(run))

    @pytest.mark.parametrize("name", MODELS)
    def test_the_rates_of_matrices_between_widths_alone(self, name: str) -> None:
        model = MODELS[name]
        program = Program(MuP(base_width=4).of(model), replace(TRAINING, {"parametrization": MuP(base_width=4)}),
                          sharding.layout())  # fmt: skip
        for path, factor in jax.tree.leaves_with_path(program.factors):
            inside = [str(key.key) for key in path]
            # a linear layer's weight, and nothing else, is called so
            assert factor == (1 / 4 if inside[-1] == "weight" else 1.0), inside
        assert 1 / 4 in jax.tree.leaves(program.factors)

    @pytest.mark.parametrize(
        ("optimizer", "power"), [(AdamW(), 1), (Lion(), 1), (Muon(), 0.5), (Muon(rms=None), 0)], ids=str
    )
    def test_an_update_is_divided_and_its_decay_is_not(self, optimizer: Any, power: float) -> None:
        run = mup(replace(WIDE, {"train.optimizer": optimizer}), base_width=16)
        program = compiled(run)
        params = made(run.model)[1]
        grads = jax.tree.map(lambda p: jnp.cos(7 * p), params)

        def changed(factors: Any, weight_decay: float) -> Any:
            rule = replace(optimizer, {"weight_decay": weight_decay}).make(0.1, program.axes, factors)
            return rule.update(grads, rule.init(params), params)[0]

        whole, part = changed(None, 0.0), changed(program.factors, 0.0)
        for name in ("up", "down"):
            a, b = whole["blocks"]["0"]["ff"][name]["weight"], part["blocks"]["0"]["ff"][name]["weight"]
            np.testing.assert_allclose(b, a / 4**power, rtol=1e-6)
        np.testing.assert_array_equal(part["embedding"], whole["embedding"])
        both = changed(program.factors, 0.5)
        decayed = both["blocks"]["0"]["ff"]["up"]["weight"] - part["blocks"]["0"]["ff"]["up"]["weight"]
        np.testing.assert_allclose(decayed, -0.1 * 0.5 * params["blocks"]["0"]["ff"]["up"]["weight"], atol=1e-6)

    def test_tables_start_as_at_the_base_width_and_matrices_by_their_inputs(self) -> None:
        drawn = {
            width: compiled(mup(at_width(replace(RUN, {"model.tied": False}), width), base_width=16)).init(0).params
            for width in (16, 256)
        }
        deviation = {width: jax.tree.map(jnp.std, params) for width, params in drawn.items()}
        for table in ("embedding", "unembedding"):
            assert deviation[256][table] == pytest.approx(1 / math.sqrt(16), rel=0.05)
            assert deviation[16][table] == pytest.approx(1 / math.sqrt(16), rel=0.2)
        up = [deviation[width]["blocks"]["0"]["ff"]["up"]["weight"] for width in (16, 256)]
        assert up[0] / up[1] == pytest.approx(4.0, rel=0.2)

    def test_logits_are_divided_in_the_loss_as_in_the_model(self) -> None:
        model = replace(WIDE.model, {"tied": False, "softcap": 2.0, "logit_scale": 0.25})
        graph, params = made(model)
        batch = {name: jnp.asarray(x) for name, x in BATCHES[0].items()}
        built: Any = param.merge(graph, params)
        plain: Any = param.merge(made(replace(model, {"logit_scale": 1.0, "softcap": None}))[0], params)
        shared = batch["tokens"], batch["positions"], batch["segments"]
        logits = built(*shared)
        np.testing.assert_allclose(logits, 2 * jnp.tanh(plain(*shared) / 4 / 2), atol=1e-5)
        nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), batch["targets"][..., None], -1)[..., 0]
        sums = NextToken()(built, batch, TRAINING.execution)
        assert float(sums.nats) == pytest.approx(float(jnp.sum(nats * batch["weights"])), rel=1e-5)

    def test_wider_heads_have_their_scores_divided_by_their_width(self) -> None:
        scales = {}
        for width in (16, 32, 64):
            model = mup(at_width(RUN, width, "wider"), base_width=16, heads="wider").model
            mixer: Any = model.block.mixer  # type: ignore[union-attr]
            p = mixer.width_of_head(width)
            assert p == width / 2
            scales[p] = mixer.scale
        assert scales[8] is None  # 1/sqrt(8)
        assert scales[16] == pytest.approx(math.sqrt(8) / 16) and scales[32] == pytest.approx(math.sqrt(8) / 32)
        assert mup(WIDE, base_width=16).model.pattern[0].mixer == WIDE.model.pattern[0].mixer

    def test_equals_scales_folded_into_the_weights(self) -> None:
        """An untied head with logits / m, deviation s and rate r is one with deviation s / m and rate r / m."""
        run = mup(replace(WIDE, {"model.tied": False, "train.optimizer.weight_decay": 0.0, "train.clip": None,
                                 "train.optimizer.eps": 1e-30}), base_width=16)  # fmt: skip
        m = 4.0
        folded = Program(replace(run.model, {"logit_scale": 1.0}), lift(run.train)[0], sharding.layout())
        folded.factors = {**folded.factors, "unembedding": 1 / m}
        state = folded.init(0)
        state.params["unembedding"] = state.params["unembedding"] / m
        for batch in BATCHES[:3]:
            state, _ = folded.step(state, folded.layout.put(batch), lift(run.train)[1])
        direct = trained(run).params
        np.testing.assert_allclose(state.params["unembedding"] * m, direct["unembedding"], atol=2e-4)
        np.testing.assert_allclose(state.params["embedding"], direct["embedding"], atol=2e-4)

    def test_runs_of_one_shape_share_a_program(self) -> None:
        run = mup(WIDE, base_width=16)
        other = replace(run, {"train.optimizer.learning_rate": 0.5, "train.optimizer.weight_decay": 0.0})
        assert lift(run.train)[0] == lift(other.train)[0]


class TestWhatItRefuses:
    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: mup(replace(WIDE, {"train.optimizer": Adafactor()}), 16), "Adafactor's rate"),
            (lambda: replace(WIDE, {"train.parametrization": MuP(base_width=16)}), "needs model.embed_std=0.25"),
            (lambda: replace(mup(WIDE, 16), {"model.logit_scale": 1.0}), "logit_scale=0.25, found 1.0"),
            (lambda: mup(replace(WIDE, {"model.logit_scale": 2.0}), 16), "has 2.0 there"),
            (lambda: mup(replace(WIDE, {"model.block.mixer.scale": 0.3}), 16, heads="wider"), "mixer.scale"),
            (lambda: MuP(base_width=0), "base_width=0"),
            (lambda: MuP(base_width=4).factors({"a": ("embed", "state")}, BASE, AdamW()), "the axis 'state'"),
        ],
    )
    def test_with_words(self, make: Any, words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            make()

    def test_what_is_the_same_at_every_width_stays(self) -> None:
        own = replace(WIDE, {"model.embed_std": 0.02, "model.embed_scale": 3.0, "model.block.mixer.scale": 0.3})
        model = mup(own, base_width=16).model
        assert (model.embed_std, model.embed_scale) == (0.02, 3.0) and model.pattern[0].mixer == own.model.block.mixer  # type: ignore[union-attr]

    def test_standard_refuses_nothing(self) -> None:
        Standard().check(replace(BASE, {"logit_scale": 3.0}), Adafactor())


class TestWidening:
    def test_there_and_back(self) -> None:
        blocks = (
            Block(mixer=gqa(4, 2, mask=Mask(window=3)), ff=MLP(hidden=24)),
            Block(mixer=mqa(2, head_width=8, qk_norm=RMSNorm())),
        )
        for heads in ("more", "wider"):
            model = replace(BASE, {"block": blocks})
            wide = widened(model, 48, heads)
            assert wide.width == 48 and widened(wide, 16, heads) == model
            a, b = (m.pattern[0].mixer for m in (model, wide))
            assert (b.heads / a.heads, b.kv_heads / a.kv_heads) == ((3, 3) if heads == "more" else (1, 1))  # type: ignore[attr-defined]
            assert wide.pattern[1].mixer.kv_heads == 1  # type: ignore[attr-defined]

    def test_muP_stays_what_it_is(self) -> None:
        run = mup(WIDE, base_width=16)
        assert at_width(at_width(run, 32), 64) == run
        assert at_width(run, 16).model == replace(BASE, {"embed_std": 0.25})  # said, where it was the default

    def test_sizes_must_be_whole(self) -> None:
        with pytest.raises(ConfigError, match=r"heads=2 times 5/4"):
            widened(BASE, 20)


class TestCoordinates:
    WIDTHS = (16, 64)

    def check(self, run: Run, heads: Any = "more", steps: int = 6) -> CoordinateCheck:
        return coordinate_check(replace(run, {"model.layers": 1}), self.WIDTHS, steps, heads, BATCHES)

    @pytest.mark.parametrize(
        ("changes", "heads"),
        [
            ({}, "more"),
            ({"model.tied": False}, "wider"),
            ({"train.optimizer": Lion(learning_rate=3e-3)}, "more"),
            ({"train.optimizer": Muon(learning_rate=0.02)}, "more"),
        ],
        ids=["adamw", "adamw, untied, wider heads", "lion", "muon"],
    )
    def test_passes_with_muP_and_fails_without(self, changes: dict[str, Any], heads: Any) -> None:
        run = replace(RUN, changes)
        assert self.check(mup(run, 16, heads)).faults() == ()
        standard = self.check(run, heads)
        assert not standard.passed
        for what in ("layer 1", "logits"):  # what training makes of them grows
            assert standard.slope(what, 6, "change") > BOUND, what

    def test_rates_alone_are_not_enough(self) -> None:
        """Each part of the parametrisation is needed: without the logits' multiplier it is seen to fail."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MuP, "of", lambda self, model: model)
            changes = {"model.embed_std": 0.25, "train.parametrization": MuP(base_width=16)}
            faults = self.check(replace(RUN, changes)).faults()
        assert faults and all(fault.startswith("logits") for fault in faults)

    def test_needs_two_widths(self) -> None:
        with pytest.raises(ConfigError, match="at least 2 widths"):
            coordinate_check(RUN, [16, 16])
