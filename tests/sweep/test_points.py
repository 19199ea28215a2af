"""The points of a sweep: grids, samples, and how they nest."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.config import ConfigError, from_dict, replace, to_dict
from lm.nn import mha, mqa
from lm.sweep import Sweep, chain, choice, cross, grid, integers, log_uniform, prefix, sample, uniform, zipped
from lm.sweep.points import draws
from lm.train import Run, Training
from tests.tiny import MODELS

BASE = Run(model=MODELS["mha"], train=Training(steps=4))
LR, CLIP, WIDTH = "train.optimizer.learning_rate", "train.clip", "model.width"
SPACE = {LR: log_uniform(1e-4, 1e-1), CLIP: uniform(0.5, 2.0), WIDTH: integers(8, 64, step=8)}

thorough = settings(max_examples=60, deadline=None, derandomize=True)
wholes = st.integers(1, 10**6)


@st.composite
def distributions(draw):
    """Any distribution, with a check of what it may give."""
    low, more = draw(st.floats(-1e6, 1e6)), draw(st.floats(1e-3, 1e6))
    start, count, step = draw(wholes), draw(st.integers(1, 1000)), draw(st.integers(1, 50))
    options = draw(st.lists(st.integers() | st.text() | st.booleans(), min_size=2, unique_by=repr))
    high = start + count * step
    return draw(
        st.sampled_from(
            [
                (uniform(low, low + more), lambda x: type(x) is float and low <= x <= low + more),
                (log_uniform(more, more * 7), lambda x: type(x) is float and more <= x <= more * 7),
                (integers(start, high, step=step), lambda x: type(x) is int and x in range(start, high + 1, step)),
                (integers(start, start + count, log=True), lambda x: type(x) is int and start <= x <= start + count),
                (choice(*options), lambda x: any(x is option for option in options)),
            ]
        )
    )


def test_grids():
    assert grid({"a": [1, 2], "b": "xy"}) == (
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    )
    assert zipped({"a": [1, 2], "b": [3, 4]}) == ({"a": 1, "b": 3}, {"a": 2, "b": 4})
    assert chain(grid({"a": [1]}), grid({"b": [2]})) == ({"a": 1}, {"b": 2})
    assert cross(grid({"a": [1, 2]}), grid({"b": [3]})) == ({"a": 1, "b": 3}, {"a": 2, "b": 3})
    with pytest.raises(ConfigError, match="equally long"):
        zipped({"a": [1], "b": [1, 2]})
    with pytest.raises(ConfigError, match="both set a"):
        cross(grid({"a": [1]}), grid({"a": [2]}))


def test_a_prefix_is_put_before_every_path():
    assert prefix("train", grid({"clip": [1.0], "accumulate": [1, 2]})) == (
        {"train.clip": 1.0, "train.accumulate": 1},
        {"train.clip": 1.0, "train.accumulate": 2},
    )
    assert prefix("train", prefix("optimizer", grid({"learning_rate": [1e-3]}))) == grid({LR: [1e-3]})


@thorough
@given(distributions(), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_values_are_plain_lie_in_the_range_and_rise_with_the_share(pair, a, b):
    distribution, allowed = pair
    values = [distribution.at(share) for share in sorted((a, b))]
    assert all(map(allowed, values)) and all(map(allowed, distribution.ends()))
    if len(distribution.ends()) == 2 and distribution.ends()[0] < distribution.ends()[1]:
        assert values[0] <= values[1]
    assert from_dict(to_dict(distribution)) == distribution


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_equal_shares_are_equally_likely(method):
    """Means and, for whole numbers, each one's frequency, over 4096 points."""
    space = {
        "a": uniform(2, 4),
        "b": log_uniform(1e-4, 1e-2),
        "c": integers(4, 16, step=4),
        "d": integers(1, 8, log=True),
    }
    points = sample(space, 4096, method=method)
    error = 0.05 if method == "random" else 0.005
    assert abs(sum(p["a"] for p in points) / 4096 - 3) < error
    assert abs(sum(math.log10(p["b"]) for p in points) / 4096 + 3) < error
    for value in (4, 8, 12, 16):
        assert abs(sum(p["c"] == value for p in points) / 4096 - 1 / 4) < error
    whole = math.log(8.5 / 0.5)
    for value in range(1, 9):
        expected = math.log((value + 0.5) / (value - 0.5)) / whole
        assert abs(sum(p["d"] == value for p in points) / 4096 - expected) < error


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_a_sample_is_its_seed_and_more_points_begin_with_the_same(method):
    few, many = sample(SPACE, 4, seed=1, method=method), sample(SPACE, 128, seed=1, method=method)
    assert many[:4] == few == sample(SPACE, 4, seed=1, method=method)
    other, unlike = sample(SPACE, 4, seed=2, method=method), {"random": "sobol", "sobol": "random"}[method]
    assert not {p[LR] for p in few} & {p[LR] for p in other}
    assert not {p[LR] for p in few} & {p[LR] for p in sample(SPACE, 4, seed=1, method=unlike)}


def test_sobol_points_fill_every_part_of_a_space():
    points = sample({"a": uniform(0, 1), "b": uniform(0, 1)}, 64, method="sobol")
    assert {(int(p["a"] * 8), int(p["b"] * 8)) for p in points} == {(i, j) for i in range(8) for j in range(8)}
    with pytest.raises(ConfigError, match="n=64 or n=128"):
        sample({"a": uniform(0, 1)}, 100, method="sobol")


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_no_point_comes_twice(method):
    space = {"a": integers(1, 4), "b": choice(mha(4), mqa(4))}
    every = grid({"a": range(1, 5), "b": (mha(4), mqa(4))})
    assert sorted(map(repr, sample(space, 8, method=method))) == sorted(map(repr, every))
    with pytest.raises(ConfigError, match="only 8 points; grid"):
        sample(space, 9)


def test_points_nest_and_fit_the_fields_of_a_run():
    points = chain(
        prefix("train.optimizer", sample({"learning_rate": log_uniform(1e-4, 1e-2)}, 3)),
        cross(sample({WIDTH: integers(8, 64, step=8)}, 2), grid({"model.block.mixer": [mha(4), mqa(4)]})),
    )
    planned = Sweep(base=BASE, points=points).planned()
    assert len(planned) == 3 + 2 * 2 and len({repr(p.run) for p in planned}) == 7


def test_a_path_that_is_not_there_and_a_value_of_the_wrong_type_are_errors():
    with pytest.raises(ConfigError, match="learning_rate"):
        Sweep(base=BASE, points=prefix("train.optimizer", sample({"learning_rat": uniform(0, 1)}, 2))).planned()
    with pytest.raises(ConfigError, match=r"model\.width must be int"):
        Sweep(base=BASE, points=sample({WIDTH: uniform(8, 64)}, 2)).planned()


WRONG = [
    (lambda: uniform(1, 1), "low=1.0 must be below high=1.0"),
    (lambda: uniform(0, math.inf), "finite"),
    (lambda: log_uniform(0, 1), "must be positive"),
    (lambda: integers(1, 6, step=2), "set high=5"),
    (lambda: integers(1, 5, step=0), "at least 1"),
    (lambda: integers(2, 8, step=2, log=True), "step=1"),
    (lambda: integers(0, 8, log=True), "low of at least 1"),
    (lambda: integers(1, 2.5), "high must be int"),
    (lambda: choice(1), "at least 2 options"),
    (lambda: choice(1, 2, 1), "the option 1 twice"),
    (lambda: sample({}, 1), "at least one path"),
    (lambda: sample({"a": [1, 2]}, 1), "a must have a distribution"),
    (lambda: sample(SPACE, 0), "at least 1"),
    (lambda: sample(SPACE, 4, method="halton"), "'random' or 'sobol'"),
]


@pytest.mark.parametrize(("make", "says"), WRONG, ids=[says for _, says in WRONG])
def test_what_cannot_be_is_an_error_that_says_what_can(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


def test_draws_go_on_where_a_sample_leaves_out():
    space = {"a": integers(1, 3)}
    endless = draws(space)
    first = [next(endless)["a"] for _ in range(40)]
    distinct = list(dict.fromkeys(first))
    assert len(first) > len(distinct) == 3 and [p["a"] for p in sample(space, 3)] == distinct
    assert replace(BASE, {WIDTH: first[0] * 8}).model.width == first[0] * 8
