"""What runs measured, as curves: the rows of their table are found again by series, seed and metric."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from lm.analysis.emergence.measured import measured, passage
from lm.analysis.emergence.scores import wilson
from lm.analysis.tables import TableError
from tests.analysis.emergence.made import runs, table

STEPS = (1, 2, 4)
PLACES = {"a, small": ("a", 100.0), "a, large": ("a", 900.0), "b, small": ("b", 100.0), "b, large": ("b", 900.0)}


def rows(arms: tuple[str, ...] = ("a", "b"), seeds: int = 2) -> pd.DataFrame:
    """Rows as runs write them: each split has columns of its own, the others are missing there."""
    found = []
    for i, arm in enumerate(arms):
        for seed in range(seeds):
            for step in STEPS:
                base = {"arm": arm, "seed": seed, "step": step, "tokens": 10 * step, "flops": 1e6 * step}
                found += [
                    base | {"split": "train", "loss": 4 - step / 2 + seed, "tokens_per_second": 9.0},
                    base | {"split": "heldout", "loss": 5 - step / 2 + i, "accuracy": step / 4},
                    base
                    | {"split": "answers", "exact": step / 8, "token_accuracy": 0.5 + step / 10}
                    | {"answer_tokens": 2.5 + i, "note": "words"},
                ]
    return pd.DataFrame(found)


def of_training(over: str = "step", **changes: pd.DataFrame):
    tables = {"runs": runs(("a", "b")), "curves": rows()} | changes
    return measured(tables["runs"], tables["curves"], over, {"a": ("first", None), "b": ("second", None)})


class TestOverTraining:
    def test_each_split_has_its_own_columns(self) -> None:
        found = of_training()
        assert found.series == ["first", "second"]
        # what says where and when a row was written is no metric, nor is a word
        assert found.metrics == sorted([
            "train.loss", "heldout.loss", "heldout.accuracy",
            "answers.exact", "answers.token_accuracy", "answers.answer_tokens", "answers.foretold",
        ])  # fmt: skip
        x, y = found.curves("train.loss", "second")[1]
        assert x.tolist() == [1, 2, 4] and y.tolist() == [4.5, 4.0, 3.0]
        assert found.curves("heldout.loss", "second")[0][1].tolist() == [5.5, 5.0, 4.0]

    @pytest.mark.parametrize(("over", "factor"), [("step", 1), ("tokens", 10), ("flops", 1e6)])
    def test_x_is_a_column(self, over: str, factor: float) -> None:
        assert of_training(over).matrix("heldout.loss", "first")[0].tolist() == [factor * step for step in STEPS]

    def test_an_x_that_isnt_there_is_refused(self) -> None:
        with pytest.raises(TableError, match="the curve table has no column 'flops'"):
            of_training("flops", curves=rows().drop(columns="flops"))

    def test_exact_match_is_foretold_from_the_rate_of_tokens(self) -> None:
        _, y = of_training().curves("answers.foretold", "second")[0]
        assert y == pytest.approx([0.6**3.5, 0.7**3.5, 0.9**3.5])
        without = of_training(curves=rows().drop(columns="answer_tokens"))
        assert "answers.foretold" not in without.metrics and "answers.token_accuracy" in without.metrics

    def test_what_isnt_finite_is_dropped(self) -> None:
        curves = rows()
        at = (curves["split"] == "heldout") & (curves["arm"] == "a") & (curves["seed"] == 0)
        curves.loc[at & (curves["step"] == 2), "accuracy"] = math.inf
        curves.loc[at & (curves["step"] == 4), "accuracy"] = math.nan
        found = of_training(curves=curves)
        assert found.curves("heldout.accuracy", "first")[0][0].tolist() == [1]
        assert found.curves("heldout.accuracy", "first")[1][0].tolist() == [1, 2, 4]
        assert found.curves("heldout.loss", "first")[0][0].tolist() == [1, 2, 4]
        x, values = found.matrix("heldout.accuracy", "first")
        assert x.tolist() == [1] and values.tolist() == [[0.25], [0.25]]

    def test_runs_that_arent_finished_are_left_out(self) -> None:
        started = runs(("a", "b"))
        started.loc[(started["arm"] == "a") & (started["seed"] == 1), "status"] = "running"
        started.loc[(started["arm"] == "b") & (started["seed"] == 0), "heldout_loss"] = math.nan
        found = of_training(runs=started)
        assert list(found.curves("train.loss", "first")) == [0] and list(found.curves("train.loss", "second")) == [1]

    def test_other_arms_are_no_part_of_it(self) -> None:
        found = measured(runs(("a", "b")), rows(), "step", {"b": ("only", None)})
        assert found.series == ["only"]

    def test_no_rows_are_no_curves(self) -> None:
        found = of_training(curves=rows().iloc[:0])
        assert found.series == [] and found.metrics == []


class TestOverSizes:
    def found(self, curves: pd.DataFrame):
        return measured(runs(tuple(PLACES)), curves, "size", PLACES)

    def test_the_last_values_of_runs_make_the_curve_of_an_arm(self) -> None:
        curves = rows(tuple(PLACES))
        found = self.found(curves.sample(frac=1, random_state=0))
        assert sorted(found.series) == ["a", "b"]
        x, values = found.matrix("heldout.loss", "a")
        assert x.tolist() == [100, 900] and values.tolist() == [[3, 4], [3, 4]]
        assert found.matrix("train.loss", "b")[1].tolist() == [[2, 2], [3, 3]]
        assert set(found.frame["step"]) == {4}

    def test_a_metric_that_ends_earlier_counts_by_its_own_last_value(self) -> None:
        curves = rows(tuple(PLACES))
        curves.loc[(curves["step"] == 4) & (curves["split"] == "answers"), "exact"] = math.nan
        assert self.found(curves).ends("answers.exact", "a") == {0: 0.25, 1: 0.25}


class TestMeasured:
    def test_patterns_give_metrics_by_the_numbers_in_them(self) -> None:
        names = [f"kinds.accuracy_{k}" for k in (10, 2, 0, 1)]
        found = table({"a": {name: [{1: 0.0}] for name in [*names, "kinds.loss_0"]}})
        assert found.matching("kinds.accuracy_*") == [f"kinds.accuracy_{k}" for k in (0, 1, 2, 10)]
        assert found.matching("kinds.loss_0") == ["kinds.loss_0"]
        with pytest.raises(TableError, match=r"nothing was measured that is called 'kinds\.loss_1'"):
            found.matching("kinds.loss_1")

    def test_names_that_arent_there(self) -> None:
        found = table({"a": {"m": [{1: 0.0}]}, "b": {"n": [{1: 0.0}]}})
        with pytest.raises(TableError, match="there is no series 'c'"):
            found.curves("m", "c")
        with pytest.raises(TableError, match="nothing was measured that is called 'o'"):
            found.curves("o", "a")
        assert found.curves("n", "a") == {} and found.ends("n", "a") == {} and found.passes("n", "a", 0) == {}
        assert found.matrix("n", "a")[1].shape == (0, 0)

    def test_a_matrix_has_what_all_seeds_share(self) -> None:
        found = table({"a": {"m": [{1: 1, 2: 2, 4: 4}, {8: 80, 4: 40, 1: 10}]}})
        x, values = found.matrix("m", "a")
        assert x.tolist() == [1, 4] and values.tolist() == [[1, 4], [10, 40]]

    def test_pairs_are_at_the_x_of_both(self) -> None:
        found = table({"a": {"m": [{1: 1, 2: 2, 4: 4}, {1: 0}, {1: 0}], "n": [{4: -4, 3: -3, 1: -1}, {2: 0}]}})
        pairs = found.pairs("m", "n", "a")
        assert list(pairs) == [0]
        assert [part.tolist() for part in pairs[0]] == [[1, 4], [1, 4], [-1, -4]]

    def test_what_so_few_exact_answers_tell_from_none(self) -> None:
        counts = {"answers.examples": [{1: 400}, {1: 100}]}
        found = table(
            {"a": {"answers.exact": [{1: 0.5}] * 2, "answers.choice": [{1: 0.5}] * 2} | counts, "b": {"m": [{1: 0}]}}
        )
        assert found.told_from_zero("answers.exact", "a") == wilson(0, 100)[1]
        assert found.told_from_zero("answers.choice", "a") == found.told_from_zero("m", "b") == 0
        assert found.told_from_zero("answers.exact", "b") == 0

    def test_the_first_passage(self) -> None:
        x, y = np.array([1.0, 2, 4, 8]), np.array([0.1, 0.6, 0.4, 0.9])
        assert passage(x, y, 0.5) == 2 and passage(x, y, 0.6) == 2 and passage(x, y, 0.7) == 8
        assert math.isinf(passage(x, y, 0.91))
        assert passage(x, y, 0.05, rising=False) == math.inf and passage(x, y, 0.4, rising=False) == 1
        assert passage(x, -y, -0.5, rising=False) == 2
        found = table({"a": {"m": [{1: 0.1, 2: 0.6}, {1: 0.1, 2: 0.2}]}})
        assert found.passes("m", "a", 0.5) == {0: 2, 1: math.inf}
        assert found.ends("m", "a") == {0: 0.6, 1: 0.2}
