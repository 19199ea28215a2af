"""On made curves: jumps are told from bends and smooth curves, intervals cover where they are, and whose they are."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from lm.analysis.emergence.bimodal import modes
from lm.analysis.emergence.mirage import exact_from_tokens
from lm.analysis.emergence.scores import detectable
from lm.analysis.emergence.shapes import RISE
from lm.analysis.emergence.verdict import (
    STRONG,
    CurveVerdict,
    bimodal_words,
    curve_verdict,
    hidden,
    same_place,
    verdict,
)
from lm.analysis.tables import TableError


def flops(n: int = 16, decades: float = 5) -> np.ndarray:
    return np.geomspace(1e18, 1e18 * 10**decades, n)


def noisy(y: np.ndarray, noise: float, seeds: int = 3, seed: int = 0) -> np.ndarray:
    return y + noise * np.random.default_rng(seed).normal(size=(seeds, len(y)))


def rise(x: Any, at: float, width: float = 0.25, low: float = 0.02, high: float = 0.95) -> np.ndarray:
    """From low to high at x = 10^at, `width` decades from 10% to 90%."""
    return low + (high - low) / (1 + np.exp(-(np.log10(x) - at) * RISE / width))


def mirage(x: np.ndarray, power: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact match of 200 examples and log-probability [3, n] of answers whose tokens' loss is a power law of x."""
    rng, length, noise = np.random.default_rng(seed), 12, 0.02
    logprob = length * -0.3 * (x / 3e19) ** -power
    exact = rng.binomial(200, exact_from_tokens(np.exp(logprob / length), length), (3, len(x))) / 200
    return exact, logprob * (1 + noise * rng.normal(size=(3, len(x)))) + noise * rng.normal(size=(3, len(x)))


SMOOTH = {
    "log-linear": lambda z: 0.1 + 0.6 * z,
    "power law": lambda z: 0.9 - 0.8 * 10 ** (-2 * z),
    "falling loss": lambda z: 1.7 + 3 * 10 ** (-1.2 * z),
    "quadratic": lambda z: 0.1 + 0.3 * z + 0.4 * z**2,
}


class TestKinds:
    @pytest.mark.parametrize("name", SMOOTH)
    @pytest.mark.parametrize(("n", "seeds", "noise"), [(8, 1, 0.02), (12, 3, 0.05), (40, 3, 0.1)])
    def test_smooth(self, name: str, n: int, seeds: int, noise: float) -> None:
        y = SMOOTH[name](np.linspace(0, 1, n))
        found = curve_verdict(flops(n), noisy(y, noise * np.ptp(y), seeds))
        assert found.kind == "smooth" and not found.breaks and found.sentence == "is smooth"
        assert math.isnan(found.break_at) and found.modes is None

    @pytest.mark.parametrize(("n", "seeds"), [(6, 3), (8, 1), (16, 4), (60, 2)])
    def test_none(self, n: int, seeds: int) -> None:
        found = curve_verdict(flops(n), noisy(np.full(n, 0.3), 0.05, seeds))
        assert found.kind == "none" and found.sentence == "doesn't change beyond noise"
        assert curve_verdict(flops(n), np.full((seeds, n), 0.3)).kind == "none"

    @pytest.mark.parametrize(("n", "seeds"), [(8, 3), (12, 1), (24, 2), (60, 3)])
    @pytest.mark.parametrize(("low", "high"), [(0.02, 0.95), (-3.0, -40.0)])
    def test_jump(self, n: int, seeds: int, low: float, high: float) -> None:
        y = rise(flops(n), 20.6, 0.25, low, high)
        found = curve_verdict(flops(n), noisy(y, 0.03 * abs(high - low), seeds))
        assert found.kind == "jump" and found.breaks and found.margin > STRONG
        gap = 5 / (n - 1)
        assert math.log10(found.break_at) == pytest.approx(20.6, abs=max(0.05, gap / 3))
        assert found.width == pytest.approx(0.25, abs=max(0.1, gap / 2))
        assert found.start < found.break_at < found.end and found.width_low <= found.width <= found.width_high
        assert found.low <= found.break_at <= found.high
        assert found.sentence.startswith("jumps between ") and found.sentence.endswith(" x")

    def test_bend(self) -> None:
        x = flops(24)
        wide = curve_verdict(x, noisy(rise(x, 20.5, 1.9), 0.02))
        kink = curve_verdict(x, noisy(np.maximum(np.log10(x) - 20, 0), 0.05))
        assert wide.kind == kink.kind == "bend"
        assert wide.break_at == pytest.approx(10**20.5, rel=0.3) and wide.width == pytest.approx(1.9, rel=0.2)

    def test_a_short_stretch_has_jumps_within_half_a_decade(self) -> None:
        x = flops(24, 1.0)
        y = noisy(rise(x, 18.5, 0.4), 0.02)
        assert curve_verdict(x, y).kind == "jump"  # 0.4 of the stretch
        assert curve_verdict(np.log10(x), y, "linear").kind == "bend"  # the same curve without decades

    def test_what_smooth_shapes_hardly_miss_is_smooth(self) -> None:
        z = np.linspace(0, 1, 60)
        for kink, kind in ((0.1, "smooth"), (0.4, "bend")):  # an early kink is nearly a smooth law's
            found = curve_verdict(flops(60), noisy(4 * z - 3.5 * np.maximum(z - kink, 0), 0.001, 1))
            assert found.margin > STRONG and found.kind == kind

    def test_unknown(self) -> None:
        assert curve_verdict([], np.zeros((0, 0))).kind == "unknown"
        found = curve_verdict(flops(5), np.zeros((2, 5)))
        assert found.kind == "unknown" and "fewer than 6" in found.sentence

    def test_a_change_less_than_what_can_be_told_is_none(self) -> None:
        x, y = flops(20), rise(flops(20), 20.5, 0.2, 0.0, 0.02)
        assert curve_verdict(x, y).kind == "jump"
        assert curve_verdict(x, y, least=detectable(100)).kind == "none"
        assert curve_verdict(x, y, least=detectable(10_000)).kind == "jump"

    def test_x_of_0_is_left_out_of_a_log_axis_only(self) -> None:
        x, y = flops(12), noisy(rise(flops(12), 20.6), 0.02)
        with_0 = curve_verdict(np.insert(x, 0, 0.0), np.insert(y, 0, 9.0, axis=1))
        assert with_0.break_at == curve_verdict(x, y).break_at
        steps = np.arange(12.0)
        step = curve_verdict(steps, rise(10**steps, 5.5, 1.0), "linear")
        assert step.evidence is not None and len(step.evidence.x) == 12

    @pytest.mark.parametrize("values", [np.zeros((2, 7)), np.full((2, 8), np.nan)])
    def test_what_is_no_curve_is_refused(self, values: np.ndarray) -> None:
        with pytest.raises(TableError, match="a number for every seed and x"):
            curve_verdict(flops(8), values)
        with pytest.raises(TableError, match="neither rises nor falls"):
            curve_verdict(np.roll(flops(8), 3), np.zeros((2, 8)))


class TestPlace:
    def test_intervals_cover(self) -> None:
        rng, x = np.random.default_rng(0), flops(24)
        held, wide, sizes = [], [], []
        for k in range(100):
            at, width, seeds = rng.uniform(19.5, 21.5), rng.uniform(0.2, 0.5), (3, 1)[k % 2]
            found = curve_verdict(x, rise(x, at, width) + rng.normal(0, 0.05, (seeds, 24)))
            assert found.breaks
            held.append(found.low <= 10**at <= found.high)
            wide.append(found.width_low <= width <= found.width_high)
            sizes.append(math.log10(found.high / found.low))
        assert np.mean(held) >= 0.85 and np.mean(wide) >= 0.85
        assert np.median(sizes) < 0.25  # and they are no wider than has to be: points are 0.2 decades apart

    def test_seeds_that_jump_at_different_places_widen_it(self) -> None:
        x, rng = flops(40), np.random.default_rng(1)
        same = rise(x, 20.5) + rng.normal(0, 0.02, (5, 40))
        apart = np.array([rise(x, at) for at in (20.2, 20.35, 20.5, 20.65, 20.8)]) + rng.normal(0, 0.02, (5, 40))
        one, other = curve_verdict(x, same), curve_verdict(x, apart)
        expected = 2.776 * np.std([20.2, 20.35, 20.5, 20.65, 20.8], ddof=1) / math.sqrt(5)  # Student's, 4 of freedom
        assert math.log10(other.high / other.low) == pytest.approx(2 * expected, rel=0.15)
        assert math.log10(one.high / one.low) < 0.1

    def test_a_jump_between_two_points_may_be_anywhere_between_them(self) -> None:
        x = flops(10)
        found = curve_verdict(x, noisy(np.where(np.arange(10) < 5, 0.0, 1.0), 0.01))
        assert found.kind == "jump"
        assert found.start <= x[4] * (1 + 1e-9) and found.end >= x[5] * (1 - 1e-9)
        assert found.low <= x[4] * (1 + 1e-9) and found.high >= x[5] * (1 - 1e-9)
        assert found.width_low == 0 and found.width_high >= math.log10(x[5] / x[4]) - 1e-9

    def test_over_a_falling_loss(self) -> None:
        loss = np.linspace(3.2, 1.7, 25)
        accuracy = 0.25 + 0.6 / (1 + np.exp((loss - 2.2) / 0.03))
        found = curve_verdict(loss, noisy(accuracy, 0.02), "linear")
        assert found.kind == "jump" and found.low < 2.2 < found.high
        assert found.start > found.break_at > found.end  # in the order of progress
        assert found.width == pytest.approx(0.03 * RISE, rel=0.25)

    def test_seeds_near_the_break_are_looked_at(self) -> None:
        x, rng = flops(16), np.random.default_rng(2)
        made_it = np.arange(8)[:, None] < 4
        values = np.where(made_it, rise(x, 20.4, 0.2), rise(x, 21.3, 0.2)) + rng.normal(0, 0.01, (8, 16))
        found = curve_verdict(x, values)
        assert found.modes is not None and found.modes.count == 2
        near = int(np.argmin(np.abs(np.log10(x / found.break_at))))
        assert found.modes == modes(values[:, near])
        assert found.sentence.endswith("where seeds fall into 2 groups")
        assert bimodal_words(found.modes) == f"2 groups (p = {found.modes.p:.3f} for one)"
        few = curve_verdict(x, values[[0, 7]]).modes
        assert few is not None and "too few seeds" in bimodal_words(few)

    def test_the_same_seed_is_the_same_verdict(self) -> None:
        x, y = flops(16), noisy(rise(flops(16), 20.5, 0.8), 0.05, 1)
        pairs = [(v.low, v.high, v.width_low, v.width_high) for v in (curve_verdict(x, y, seed=s) for s in (0, 0, 1))]
        assert pairs[0] == pairs[1] != pairs[2]


class TestVerdict:
    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize(("power", "kind"), [(0.7, "bend"), (1.4, "jump")])
    def test_a_mirage_is_the_metrics(self, power: float, kind: str, seed: int) -> None:
        exact, logprob = mirage(flops(), power, seed)
        hard, soft = curve_verdict(flops(), exact), curve_verdict(flops(), logprob)
        assert hard.kind == kind and soft.kind == "smooth"
        found = verdict(hard, soft, "exact match", "log-probability", "FLOPs")
        assert found.whose == "metric"
        assert found.sentence.startswith(f"exact match {kind}s between ")
        assert found.sentence.endswith(f" FLOPs; log-probability is smooth: the {kind} is the metric's")

    @pytest.mark.parametrize("seed", range(6))
    def test_a_jump_of_both_is_the_models(self, seed: int) -> None:
        x, at = flops(), 19.8 + 0.25 * seed
        hard = curve_verdict(x, noisy(rise(x, at, 0.25), 0.03, seed=seed))
        soft = curve_verdict(x, noisy(rise(x, at - 0.1, 0.3, -20, -1), 0.6, seed=seed + 9))
        found = verdict(hard, soft, "exact", "logprob", "FLOPs")
        assert found.whose == "model" and found.sentence.endswith("the jump is real, both break at one place")

    def test_no_jump(self) -> None:
        x, z = flops(), np.linspace(0, 1, 16)
        smooth, none = curve_verdict(x, noisy(0.6 * z, 0.02)), curve_verdict(x, noisy(0 * z, 0.02))
        for hard in (smooth, none):
            assert verdict(hard, smooth, "a", "b", "x").whose == "nobody"
        assert verdict(smooth, none, "a", "b", "x").sentence == ("a is smooth; b doesn't change beyond noise: no jump")

    @pytest.mark.parametrize(
        ("soft", "why"),
        [
            (lambda x: noisy(0 * x - 3, 0.1), "undecided, the soft metric saw nothing"),
            (lambda x: noisy(rise(x, 22.0, 0.2, -20, -1), 0.2), "undecided, they break at different places"),
            (lambda x: noisy(np.log10(x), 2.5), "undecided, b is too noisy to exclude a jump at the same place"),
        ],
    )
    def test_undecided(self, soft: Any, why: str) -> None:
        x = flops()
        hard = curve_verdict(x, noisy(rise(x, 20.2), 0.02))
        found = verdict(hard, curve_verdict(x, soft(x)), "a", "b", "x")
        assert found.whose == "undecided" and found.sentence.endswith(why)

    def test_undecided_where_the_hard_metric_hardly_breaks(self) -> None:
        x = flops()
        smooth = curve_verdict(x, noisy(np.log10(x), 0.05))
        weak = dataclasses.replace(smooth, margin=3.2)
        found = verdict(weak, smooth, "a", "b", "x")
        assert (
            found.whose == "undecided"
            and "some evidence for a break of a, 3.2, and 6 would be strong" in found.sentence
        )
        assert verdict(dataclasses.replace(smooth, margin=-1.0), smooth, "a", "b", "x").whose == "nobody"

    def test_undecided_where_too_little_was_measured(self) -> None:
        known = curve_verdict(flops(), noisy(rise(flops(), 20.2), 0.02))
        for pair in ((known, CurveVerdict(kind="unknown")), (CurveVerdict(kind="unknown"), known)):
            assert verdict(*pair, "a", "b", "x").whose == "undecided"

    def test_how_much_may_be_hidden(self) -> None:
        """A soft metric that is a line and a share of the hard metric's jump hides that share, and what noise adds."""
        x = flops(40)
        hard = curve_verdict(x, noisy(rise(x, 20.5, 0.3, 0, 1), 0.01))
        z = np.linspace(0, 1, 40)
        line = curve_verdict(x, noisy(z, 0.001))
        assert hidden(hard, line) < 0.01
        assert hard.evidence is not None and hard.evidence.broken is not None
        little = curve_verdict(x, 0.97 * z + 0.03 * np.asarray(hard.evidence.broken.predict(x)) + noisy(0 * z, 0.001))
        assert little.kind == "smooth" and 0.01 < hidden(hard, little) < 0.06
        assert hidden(hard, curve_verdict(x, noisy(z, 0.3))) > 0.2

    def test_one_place(self) -> None:
        x = flops(40)
        base = curve_verdict(x, noisy(rise(x, 20.5), 0.02))
        assert same_place(base, base)
        for away, same in ((0.45, True), (0.55, False)):
            there = {k: getattr(base, k) * 10**away for k in ("break_at", "low", "high")}
            assert same_place(base, dataclasses.replace(base, **there)) == same
        wide = dataclasses.replace(base, break_at=base.break_at * 100, low=base.high * 0.99, high=base.high * 1e4)
        assert same_place(base, wide)
