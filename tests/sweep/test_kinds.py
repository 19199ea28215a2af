"""What the experiments about learning rates and seeds plan."""

from __future__ import annotations

import pytest

from lm.config import ConfigError, content_hash, replace
from lm.models import Decoder
from lm.nn import Block, mha, mqa, swiglu
from lm.sweep.noise import ORDER, SeedNoise
from lm.sweep.transfer import RATE, RULE, WIDTH, LRTransfer
from lm.train import Adafactor, MuP, Run, Standard, Training, mup

BASE = Run(model=Decoder(vocab=256, width=16, layers=1, block=Block(mixer=mha(2), ff=swiglu(24))),
           train=Training(steps=30))  # fmt: skip
TRANSFER = LRTransfer(base=BASE, widths=(32, 8, 16), rates=(1e-2, 1e-3, 1e-1), seeds=2)
NOISE = SeedNoise(base=BASE, variant={"model.block.mixer": mqa(2)}, seeds=5, crossed=3)


class TestTransfer:
    def test_plans_every_width_and_rate_under_both(self) -> None:
        planned = TRANSFER.planned()
        assert len(planned) == 2 * 3 * 3 * 2 and len({content_hash(p.run) for p in planned}) == len(planned)
        seen = {(type(p.run.train.parametrization), p.run.model.width, p.run.train.optimizer.learning_rate)
                for p in planned}  # fmt: skip
        assert seen == {(t, w, r) for t in (Standard, MuP) for w in (8, 16, 32) for r in (1e-3, 1e-2, 1e-1)}
        for p in planned:
            assert p.point[WIDTH] == p.run.model.width and p.point[RATE] == p.run.train.optimizer.learning_rate
            assert p.point[RULE] == p.run.train.parametrization

    def test_the_two_meet_at_the_narrowest(self) -> None:
        runs = {arm: run for arm, (run, _) in TRANSFER.arms_resolved().items()}
        assert runs["muP, width 8, rate 0.01"].model == runs["standard, width 8, rate 0.01"].model
        assert runs["muP, width 32, rate 0.01"].model.logit_scale == 1 / 4
        wider = replace(TRANSFER, {"heads": "wider"}).arms_resolved()["muP, width 32, rate 0.01"][0]
        assert wider.model.pattern[0].mixer.scale == 4**0.5 / 16  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"widths": (8, 8)}, "at least 2 widths"),
            ({"rates": (1e-3, 1e-2)}, "3 rates"),
            ({"base": mup(BASE, 8)}, r"must be Standard\(\)"),
            ({"seeds": 0}, "seeds=0"),
        ],
    )
    def test_refuses(self, changes: dict, words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            replace(TRANSFER, changes)

    def test_an_optimizer_without_a_rule_is_refused_when_planned(self) -> None:
        with pytest.raises(ConfigError, match="Adafactor"):
            replace(TRANSFER, {"base.train.optimizer": Adafactor()}).planned()


class TestNoise:
    def test_plans_each_pair_of_seeds_once(self) -> None:
        planned = NOISE.planned()
        base = [p for p in planned if p.arm != "variant"]
        pairs = {(p.run.seed, p.run.data.seed) for p in base}
        assert len(pairs) == len(base) == 5 + 3 * 3 - 3
        assert {(i, j) for i in range(3) for j in range(3)} <= pairs and {(s, s) for s in range(5)} <= pairs
        assert len({(p.arm, p.seed) for p in planned}) == len(planned) == len(base) + 5
        for p in base:
            assert p.point.get(ORDER, p.run.data.seed) == p.run.data.seed and p.seed == p.run.seed

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"crossed": 6}, "crossed=6"),
            ({"crossed": 1}, "crossed=1"),
            ({"seeds": 1}, "seeds=1"),
            ({"variant": {}}, "the base's own"),
        ],
    )
    def test_refuses(self, changes: dict, words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            replace(NOISE, changes)
