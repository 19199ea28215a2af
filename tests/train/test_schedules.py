"""Schedules: known points, and traced numbers give what constants give."""

import jax
import numpy as np
import pytest

from lm.config import ConfigError, lift, lower
from lm.train.schedules import WSD, Constant, Cosine, InverseSqrt, Linear, Schedule

ALL = [
    Constant(warmup=9),
    Linear(warmup=9, final=0.2),
    Cosine(warmup=9, final=0.1),
    WSD(warmup=9, decay=0.25, final=0.1),
    WSD(warmup=9, decay=0.25, fall="sqrt"),
    InverseSqrt(warmup=9),
]


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_warmup_rises_linearly_to_the_peak(schedule: Schedule):
    values = [float(schedule(step, 109)) for step in range(10)]
    np.testing.assert_allclose(values, np.arange(1, 11) / 10, rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "step", "value"),
    [
        (Constant(), 0, 1.0),
        (Constant(), 99, 1.0),
        (Linear(), 0, 1.0),
        (Linear(), 50, 0.5),
        (Linear(final=0.2), 50, 0.6),
        (Linear(warmup=20), 60, 0.5),
        (Linear(), 99, 0.01),
        (Cosine(final=0.0), 50, 0.5),
        (Cosine(final=0.1), 50, 0.55),
        (Cosine(final=0.0), 25, 0.5 + 0.5 * np.sqrt(0.5)),
        (Cosine(final=0.1), 100, 0.1),
        (WSD(decay=0.2), 79, 1.0),
        (WSD(decay=0.2), 80, 1.0),
        (WSD(decay=0.2), 90, 0.5),
        (WSD(decay=0.2, fall="sqrt"), 85, 0.5),
        (WSD(decay=0.2, final=0.5), 90, 0.75),
        (InverseSqrt(warmup=24), 99, 0.5),
    ],
)
def test_known_points(schedule: Schedule, step: int, value: float):
    assert float(schedule(step, 100)) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_traced_numbers_give_the_same_values_from_one_executable(schedule: Schedule):
    shape, values = lift(schedule)
    assert values["warmup"] == 9
    traces = []

    @jax.jit
    def traced(values, step, steps):
        traces.append(1)
        return lower(shape, values)(step, steps)

    for steps in (50, 109):
        for step in (0, 8, 9, 30, 45, 49):
            expected = float(schedule(step, steps))
            assert 0 <= expected <= 1
            np.testing.assert_allclose(traced(values, step, steps), expected, rtol=2e-6, atol=1e-7)
    assert len(traces) == 1


@pytest.mark.parametrize("schedule", ALL[1:5], ids=lambda s: type(s).__name__)
def test_never_rises_after_warmup_and_ends_at_final(schedule: Schedule):
    values = np.array([float(schedule(step, 40)) for step in range(9, 41)])
    assert np.all(np.diff(values) <= 1e-7)
    assert values[-1] == pytest.approx(getattr(schedule, "final", 0.0), abs=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Constant(warmup=-1), "warmup=-1"),
        (lambda: Cosine(final=1.5), "final=1.5"),
        (lambda: WSD(decay=0.0), "decay=0.0"),
        (lambda: Cosine(warmup=100).check(100), "warmup below 100"),
        (lambda: WSD(warmup=90, decay=0.2).check(100), "overlap"),
    ],
)
def test_bad_values_are_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_good_lengths_are_accepted():
    Cosine(warmup=99).check(100)
    WSD(warmup=80, decay=0.2).check(100)
