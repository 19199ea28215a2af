"""Claims hold, fail or can't be judged as their words say, in each seed by itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from lm.analysis.emergence.measured import Measured
from lm.config import ConfigError
from lm.sweep import (
    Above,
    Advantage,
    Claim,
    Delayed,
    Dwells,
    Near,
    Never,
    NeverBelow,
    Reaches,
    Shape,
    Staircase,
    Takes,
    Together,
)
from tests.analysis.emergence.made import Seeds, table

SOON, LATE, NEVER = {1: 0.0, 10: 1.0, 1000: 1.0}, {1: 0.0, 10: 0.5, 1000: 1.0}, {1: 0.0, 10: 0.1, 1000: 0.2}
FALLING = {1: 2.0, 10: 1.0, 1000: 0.05}


def of(metrics: Mapping[str, Seeds]) -> Measured:
    """One series with these metrics, beside another one that has something else."""
    return table({"arm": metrics, "other": {"o": [{1: 0.0}]}})


def holds(claim: Claim, metrics: Mapping[str, Seeds]) -> bool | None:
    return claim.judged(of(metrics)).holds


def seen(claim: Claim, metrics: Mapping[str, Seeds]) -> str:
    return claim.judged(of(metrics)).seen


class TestAnyClaim:
    def test_what_isnt_there_can_not_be_judged(self) -> None:
        claim = Reaches(expected="it rises", series="arm", metric="m", level=0.5)
        said = "nothing was measured that is called 'm'; it has: n, o"
        assert claim.judged(of({"n": [SOON]})) == ("it rises", said, None)
        judged = claim.judged(table({"arms": {"m": [SOON]}}))
        assert judged.holds is None and judged.seen.startswith("there is no series 'arm'")
        assert claim.judged(table({})).holds is None

    @pytest.mark.parametrize(
        "claim",
        [
            Reaches(expected="", series="arm", metric="o", level=0.5),
            Never(expected="", series="arm", metric="o", level=0.5),
            Delayed(expected="", series="arm", early="o", late="m", level=0.5),
            Delayed(expected="", series="arm", early="m", late="o", level=0.5),
            Together(expected="", series="arm", metrics=("m", "o")),
            Near(expected="", series="arm", metric="m", gold="o", tolerance=0.1),
            Above(expected="", of=("arm", "m"), over=("arm", "o")),
            NeverBelow(expected="", series="arm", metric="m", gold="o"),
            Dwells(expected="", series="arm", metric="m", gold="o", tolerance=0.1),
            Staircase(expected="", series="arm", metrics="o", level=0.5, count=1),
            Takes(expected="", series="arm", metrics="o", start=0.1, end=0.5),
            Shape(expected="", series="arm", metric="o", kinds=("none",)),
            Advantage(expected="", of=("arm", "o"), over=("other", "o")),
        ],
        ids=lambda claim: type(claim).__name__,
    )
    def test_what_only_another_series_has_can_not_be_judged(self, claim: Claim) -> None:
        judged = claim.judged(of({"m": [SOON]}))
        assert judged.holds is None
        assert "not measured" in judged.seen or "fewer than two sizes" in judged.seen, judged.seen


class TestReaches:
    UP = Reaches(expected="", series="arm", metric="m", level=0.9)
    DOWN = Reaches(expected="", series="arm", metric="m", level=0.1, rising=False)

    def test_in_every_seed(self) -> None:
        assert holds(self.UP, {"m": [SOON, LATE]}) is True
        assert holds(self.UP, {"m": [SOON, NEVER]}) is False
        assert holds(self.DOWN, {"m": [FALLING]}) is True
        assert holds(self.DOWN, {"m": [FALLING, {1: 2.0, 10: 0.11}]}) is False

    def test_words(self) -> None:
        assert seen(self.UP, {"m": [SOON]}) == "arm: m reaches 0.9 at 10"
        assert seen(self.UP, {"m": [SOON, LATE, LATE]}) == "arm: m reaches 0.9 at 1,000 [10, 1,000]"
        assert seen(self.UP, {"m": [SOON, NEVER, LATE]}) == "arm: m reaches 0.9 at 505 [10, 1,000] in 2 of 3 seeds"
        assert seen(self.UP, {"m": [NEVER]}) == "arm: m never reaches 0.9 (1 seed)"
        assert seen(self.DOWN, {"m": [FALLING, FALLING]}) == "arm: m reaches 0.1 at 1,000"
        assert seen(self.UP, {"m": [{2.5e9: 1.0}]}) == "arm: m reaches 0.9 at 2.50G"


class TestNever:
    UP = Never(expected="", series="arm", metric="m", level=0.9)

    def test_in_no_seed(self) -> None:
        assert holds(self.UP, {"m": [NEVER, NEVER]}) is True
        assert holds(self.UP, {"m": [NEVER, LATE]}) is False
        low = Never(expected="", series="arm", metric="m", level=0.1, rising=False)
        assert holds(low, {"m": [FALLING]}) is False and holds(low, {"m": [{1: 2.0, 10: 1.0}]}) is True

    def test_words(self) -> None:
        assert seen(self.UP, {"m": [NEVER, {1: 0.0, 10: 0.4}]}) == (
            "arm: m never reaches 0.9 (2 seeds), at the end 0.3 [0.2, 0.4]"
        )
        assert seen(self.UP, {"m": [NEVER, LATE]}) == (
            "arm: m reaches 0.9 at 1,000 in 1 of 2 seeds, at the end 0.6 [0.2, 1]"
        )


class TestDelayed:
    CLAIM = Delayed(expected="", series="arm", early="e", late="l", level=0.9, factor=100)

    def test_in_every_seed_by_the_factor(self) -> None:
        assert holds(self.CLAIM, {"e": [SOON, SOON], "l": [LATE, LATE]}) is True
        assert holds(self.CLAIM, {"e": [SOON, LATE], "l": [LATE, LATE]}) is False
        assert holds(self.CLAIM, {"e": [SOON], "l": [{1: 0.0, 999: 1.0}]}) is False

    def test_both_have_to_happen(self) -> None:
        assert holds(self.CLAIM, {"e": [SOON, SOON], "l": [LATE, NEVER]}) is False
        assert holds(self.CLAIM, {"e": [NEVER], "l": [LATE]}) is False
        assert holds(self.CLAIM, {"e": [NEVER], "l": [NEVER]}) is False

    def test_a_seed_counts_that_has_both(self) -> None:
        assert holds(self.CLAIM, {"e": [SOON], "l": [LATE, NEVER]}) is True

    def test_words(self) -> None:
        assert seen(self.CLAIM, {"e": [SOON, SOON], "l": [LATE, {1: 0.0, 5000: 1.0}]}) == (
            "arm: e reaches 0.9 at 10, l reaches 0.9 at 3,000 [1,000, 5,000]: 300 [100, 500] times later"
        )
        assert seen(self.CLAIM, {"e": [SOON], "l": [NEVER]}) == (
            "arm: e reaches 0.9 at 10, l never reaches 0.9 (1 seed)"
        )


class TestTogether:
    CLAIM = Together(expected="", series="arm", metrics=("a", "b"), factor=2.0)

    def test_half_way_at_the_same_x(self) -> None:
        # one falls from 8 to 4, the other rises from 0 to 1
        falls, rises = {10: 8.0, 20: 7.0, 30: 6.0, 40: 4.0}, {10: 0.0, 20: 0.4, 60: 0.5, 80: 1.0}
        assert holds(self.CLAIM, {"a": [falls], "b": [rises]}) is True
        assert seen(self.CLAIM, {"a": [falls], "b": [rises]}) == "arm: a half-way at 30; b half-way at 60"
        later = {10: 0.0, 60: 0.49, 61: 0.5, 80: 1.0}
        assert holds(self.CLAIM, {"a": [falls], "b": [later]}) is False
        assert holds(self.CLAIM, {"a": [falls, falls], "b": [rises, later]}) is False

    def test_what_doesnt_change_is_never_half_way(self) -> None:
        flat = {10: 1.0, 20: 1.5, 40: 1.0}
        assert holds(self.CLAIM, {"a": [flat], "b": [SOON]}) is False
        assert holds(self.CLAIM, {"a": [flat], "b": [flat]}) is False

    def test_seeds_are_compared_with_themselves(self) -> None:
        slow = {1: 0.0, 10: 0.0, 1000: 1.0}
        assert holds(self.CLAIM, {"a": [SOON, slow], "b": [SOON, slow]}) is True
        assert holds(self.CLAIM, {"a": [SOON, slow], "b": [slow, SOON]}) is False

    def test_two_at_least(self) -> None:
        with pytest.raises(ConfigError, match="at least two metrics"):
            Together(expected="", series="arm", metrics=("a",))


class TestNear:
    CLAIM = Near(expected="", series="arm", metric="m", gold="g", tolerance=0.1)

    def test_at_the_end_on_average(self) -> None:
        gold = [{1: 0.0, 9: 2.0}] * 2
        assert holds(self.CLAIM, {"m": [{1: 5.0, 9: 2.25}, {1: 5.0, 9: 1.875}], "g": gold}) is True
        assert holds(self.CLAIM, {"m": [{1: 5.0, 9: 2.25}, {1: 5.0, 9: 2.0}], "g": gold}) is False
        assert holds(self.CLAIM, {"m": [{1: 2.0, 9: 1.8}], "g": gold}) is False

    def test_words(self) -> None:
        assert seen(self.CLAIM, {"m": [{1: 2.25}, {1: 1.875}], "g": [{1: 2.0}, {1: 2.0}]}) == (
            "arm: m 2.06 [1.88, 2.25], g 2: +0.0625 on average"
        )


class TestNeverBelow:
    CLAIM = NeverBelow(expected="", series="arm", metric="m", gold="g", slack=0.25)
    GOLD = ({1: 1.0, 2: 1.0, 4: 1.0}, {1: 1.0, 2: 1.0, 4: 1.0})

    def test_nowhere_on_the_way(self) -> None:
        assert holds(self.CLAIM, {"m": [{1: 3.0, 2: 0.75, 4: 1.0}], "g": self.GOLD}) is True
        assert holds(self.CLAIM, {"m": [{1: 3.0, 2: 0.7, 4: 1.0}], "g": self.GOLD}) is False
        assert holds(self.CLAIM, {"m": [{1: 3.0, 4: 1.0}, {1: 3.0, 4: 0.5}], "g": self.GOLD}) is False

    def test_by_what_both_have(self) -> None:
        assert holds(self.CLAIM, {"m": [{1: 3.0, 3: 0.0, 4: 1.0}], "g": self.GOLD}) is True

    def test_words(self) -> None:
        assert seen(self.CLAIM, {"m": [{1: 3.0, 2: 1.5}, {1: 3.0, 4: 0.75}], "g": self.GOLD}) == (
            "arm: m - g is at least -0.2500"
        )


class TestDwells:
    CLAIM = Dwells(expected="", series="arm", metric="m", gold="g", tolerance=0.1, factor=2.0)

    def curve(self, *values: float) -> dict[float, float]:
        """At x = 1, 2, 4, ..; the gold is 1 everywhere."""
        return {2.0**k: value for k, value in enumerate(values)}

    def judged(self, *curves: dict[float, float]):
        return self.CLAIM.judged(of({"m": curves, "g": [dict.fromkeys(curve, 1.0) for curve in curves]}))

    def test_a_phase_is_long_enough_and_ends(self) -> None:
        assert self.judged(self.curve(3, 1.05, 0.95, 0.5)).holds is True
        assert self.judged(self.curve(3, 1.05, 0.5, 0.5)).holds is False  # too short
        assert self.judged(self.curve(3, 2, 1.05, 0.95)).holds is False  # it is where it ends
        assert self.judged(self.curve(3, 2, 1.2, 0.5)).holds is False  # never near
        assert self.judged(self.curve(3, 1.05, 0.95, 0.5), self.curve(3, 1.05, 0.5, 0.5)).holds is False

    def test_it_isnt_left_in_between(self) -> None:
        assert self.judged(self.curve(3, 1.0, 2.0, 1.0, 0.5)).holds is False
        assert self.judged(self.curve(1.0, 3, 1.0, 1.0, 1.0, 0.5)).holds is True  # the longest stretch counts

    def test_words(self) -> None:
        assert self.judged(self.curve(3, 1.05, 0.95, 0.5), self.curve(3, 2, 1.05, 0.95)).seen == (
            "arm: m near g from 2 to 4, in no phase"
        )


class TestStaircase:
    CLAIM = Staircase(expected="", series="arm", metrics="k_*", level=0.9, count=2, factor=4.0)

    def at(self, *xs: float) -> dict[str, Seeds]:
        """A metric for each x, that it is reached at; infinite for never."""
        return {f"k_{k}": [{0.5: 0.0, x: 1.0} if x < 1e9 else {0.5: 0.0}] for k, x in enumerate(xs)}

    def test_one_after_another_and_enough_of_them(self) -> None:
        assert holds(self.CLAIM, self.at(1, 2, 4)) is True
        assert holds(self.CLAIM, self.at(1, 2, 3)) is False
        assert holds(self.CLAIM, self.at(1, 1e9, 4)) is True
        assert holds(self.CLAIM, self.at(1, 1e9, 1e9)) is False
        assert holds(self.CLAIM, self.at(1e9, 1e9)) is False

    def test_in_every_seed(self) -> None:
        good, bad = self.at(1, 2, 4), self.at(1, 2, 3)
        assert holds(self.CLAIM, {name: [*good[name], *good[name]] for name in good}) is True
        assert holds(self.CLAIM, {name: [*good[name], *bad[name]] for name in good}) is False

    def test_words(self) -> None:
        assert seen(self.CLAIM, self.at(1, 2, 10)) == ("arm: 3 of 3 reach 0.9, the last at 10 times the x of the first")
        assert seen(self.CLAIM, self.at(1e9, 1e9)) == "arm: 0 of 2 reach 0.9"


class TestTakes:
    UP = Takes(expected="", series="arm", metrics="k_*", start=0.25, end=0.75, most=3.0)
    FAST, SLOW, HALF = {1: 0.0, 2: 0.25, 6: 0.8}, {1: 0.0, 2: 0.3, 7: 0.8}, {1: 0.0, 2: 0.3, 7: 0.7}

    def test_every_metric_in_every_seed(self) -> None:
        assert holds(self.UP, {"k_0": [self.FAST, self.FAST], "k_1": [self.FAST]}) is True
        assert holds(self.UP, {"k_0": [self.FAST, self.FAST], "k_1": [self.SLOW]}) is False
        assert holds(self.UP, {"k_0": [self.FAST, self.SLOW]}) is False
        assert holds(self.UP, {"k_0": [self.FAST, self.HALF]}) is False

    def test_it_can_take_long(self) -> None:
        long = Takes(expected="", series="arm", metrics="m", start=1.5, end=0.5, least=4.0)
        assert holds(long, {"m": [{1: 2.0, 2: 1.5, 8: 0.5}]}) is True
        assert holds(long, {"m": [{1: 2.0, 2: 1.5, 7: 0.5}]}) is False
        assert holds(long, {"m": [{1: 2.0, 2: 1.5, 8: 0.6}]}) is False  # it doesn't end

    def test_words(self) -> None:
        assert seen(self.UP, {"k_0": [self.FAST, self.SLOW]}) == (
            "arm: k_* from 0.25 to 0.75 while x grows 3.25 [3, 3.5] times"
        )
        assert seen(self.UP, {"k_0": [self.FAST, self.HALF]}) == (
            "arm: k_* from 0.25 to 0.75 while x grows 3 times, never in 1 of 2"
        )
        assert seen(self.UP, {"k_0": [self.HALF]}) == "arm: k_* from 0.25 to 0.75 never in 1 of 1"


class TestShape:
    X = 2.0 ** np.arange(16)
    STEP, SLOPE = 1 / (1 + (300 / X) ** 6), np.log2(X) / 15
    JUMP = Shape(expected="", series="arm", metric="m", kinds=("jump",))

    def judged(self, *curves: np.ndarray, over_sizes: bool = False):
        made = of({"m": [dict(zip(self.X, y, strict=True)) for y in curves]})
        return self.JUMP.judged(Measured(made.frame, over_sizes, "steps"))

    def test_the_kind_of_each_seeds_curve(self) -> None:
        judged = self.judged(self.STEP, self.STEP)
        assert judged.holds is True and judged.seen.startswith("arm: m jumps between ")
        assert judged.seen.endswith(" steps")
        judged = self.judged(self.STEP, self.SLOPE)
        assert judged.holds is False and judged.seen.endswith(" steps; is smooth")
        assert self.judged(self.SLOPE).seen == "arm: m is smooth"

    def test_over_sizes_the_kind_of_their_mean(self) -> None:
        wave = 0.4 * np.sin(7 * np.log2(self.X))
        assert self.judged(self.STEP + wave, self.STEP - wave, over_sizes=True).holds is True
        assert self.judged(self.STEP + wave, self.STEP - wave).holds is False

    @pytest.mark.parametrize(("examples", "jumps"), [(100, False), (10_000, True)])
    def test_exact_answers_that_cant_be_told_from_none_are_no_jump(self, examples: int, jumps: bool) -> None:
        exact = [dict(zip(self.X, 0.02 * self.STEP, strict=True))]
        counts = [dict.fromkeys(self.X, examples)]
        claim = Shape(expected="", series="arm", metric="answers.exact", kinds=("jump",))
        assert holds(claim, {"answers.exact": exact, "answers.examples": counts}) is jumps

    def test_few_points_say_nothing(self) -> None:
        judged = self.JUMP.judged(of({"m": [SOON]}))
        assert judged.holds is None and judged.seen == "arm: m not known: fewer than 6 places were measured"


class TestAbove:
    CLAIM = Above(expected="", of=("a", "m"), over=("b", "n"), margin=0.25)

    def judged(self, ours: Seeds, theirs: Seeds):
        return self.CLAIM.judged(table({"a": {"m": ours}, "b": {"n": theirs}}))

    def test_in_the_end_in_every_seed_by_more_than_the_margin(self) -> None:
        half = [{1: 0.5, 10: 0.5}] * 2
        assert self.judged([{1: 0.0, 10: 1.0}, {1: 0.0, 10: 0.8}], half).holds is True
        assert self.judged([{1: 1.0, 10: 1.0}, {1: 1.0, 10: 0.75}], half).holds is False

    def test_seeds_that_both_have(self) -> None:
        assert self.judged([{1: 1.0}, {1: 0.0}], [{1: 0.5}]).holds is True

    def test_words(self) -> None:
        assert self.judged([{1: 1.0}, {1: 0.75}], [{1: 0.5}, {1: 0.5}]).seen == (
            "a: m 0.875 [0.75, 1]; b: n 0.5; apart by 0.375 [0.25, 0.5]"
        )


class TestAdvantage:
    CLAIM = Advantage(expected="", of=("a", "m"), over=("b", "m"), margin=0.25)

    def judged(self, ours: Seeds, theirs: Seeds):
        return self.CLAIM.judged(table({"a": {"m": ours}, "b": {"m": theirs}}))

    def test_at_the_largest_size_and_not_at_the_smallest(self) -> None:
        flat = [{100: 0.5, 200: 0.5, 400: 0.5}]
        assert self.judged([{100: 0.5, 200: 0.9, 400: 1.0}], flat).holds is True
        assert self.judged([{100: 0.9, 200: 0.9, 400: 1.0}], flat).holds is False
        assert self.judged([{100: 0.5, 200: 1.0, 400: 0.75}], flat).holds is False

    def test_on_average_over_seeds(self) -> None:
        flat = [{100: 0.5, 400: 0.5}]
        assert self.judged([{100: 0.5, 400: 1.0}, {100: 0.5, 400: 0.6}], flat).holds is True
        assert self.judged([{100: 0.5, 400: 1.0}, {100: 0.5, 400: 0.5}], flat).holds is False

    def test_sizes_that_both_have(self) -> None:
        assert self.judged([{100: 0.5, 400: 1.0, 800: 0.0}], [{50: 0.0, 100: 0.5, 400: 0.5}]).holds is True
        one = self.judged([{100: 0.5, 400: 1.0}], [{50: 0.0, 400: 0.5}])
        assert one == ("", "fewer than two sizes are there", None)

    def test_words(self) -> None:
        flat = [{1500: 0.5, 20_000: 0.5, 2_500_000: 0.5}]
        assert self.judged([{1500: 0.5, 20_000: 0.9, 2_500_000: 1.0}], flat).seen == (
            "advantage +0.00 at 1,500, +0.40 at 20,000, +0.50 at 2.50M: above 0.25 first at 20,000"
        )
        assert self.judged(flat, flat).seen.endswith("never above 0.25")
