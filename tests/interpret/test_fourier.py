"""Spectra of embeddings: tables whose frequencies are known, and the order in which a group's numbers follow."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from lm import sharding
from lm.config import ConfigError, lift
from lm.data import Data, Stdlib, TaskData
from lm.data.synthetic.modular import ModularArithmetic
from lm.data.synthetic.repeats import RepeatedSequence
from lm.errors import UserError
from lm.interpret import Fourier, concentration, gini, spectrum
from lm.interpret.fourier import residues
from lm.models import Decoder
from lm.nn import Block, mha
from lm.train import Recording, Run, Training
from lm.train.load import load_run
from lm.train.loop import Machine, train
from lm.train.rows import read
from lm.train.step import Program
from tests.tiny import WIDTH, made

P = 59


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def waves(n: int, frequencies: dict[int, float], width: int = 8) -> np.ndarray:
    """A table [n, width]: for each frequency, a circle of that radius in a plane of its own, and a constant."""
    angle = 2 * np.pi * np.arange(n) / n
    columns = [r * f(k * angle) for k, r in frequencies.items() for f in (np.cos, np.sin)]
    table = np.pad(np.stack(columns, axis=1), ((0, 0), (0, width - len(columns))))
    return table @ rotation(width) + normal(width)


def rotation(width: int) -> np.ndarray:
    return np.linalg.qr(normal(width, width, seed=1))[0]


def test_the_frequencies_of_a_table_are_found() -> None:
    table = waves(P, {3: 1.0, 11: 2.0, 29: 3.0})
    power = spectrum(table)
    assert power.shape == (29,)
    expected = np.zeros(29)
    expected[[2, 10, 28]] = P * np.array([1, 4, 9])  # a circle of radius r has the variance r^2
    np.testing.assert_allclose(power, expected, atol=1e-9)
    assert concentration(table, top=3) == pytest.approx(1)
    assert concentration(table, top=2) == pytest.approx(13 / 14)
    assert concentration(table, top=1) == pytest.approx(9 / 14)


@pytest.mark.parametrize("n", [2, 7, 12])
def test_the_power_is_the_variance_and_that_of_the_definition(n: int) -> None:
    table = normal(n, 5)
    np.testing.assert_allclose(spectrum(table).sum(), n * table.var(0).sum())
    for k, found in enumerate(spectrum(table), start=1):
        both = {k, n - k}  # a frequency and its negative
        waves = [np.exp(-2j * np.pi * f * np.arange(n) / n) for f in both]
        np.testing.assert_allclose(found, sum(np.linalg.norm(wave @ table) ** 2 for wave in waves) / n)


def test_turning_the_width_changes_nothing() -> None:
    table = normal(P, 16)
    np.testing.assert_allclose(spectrum(table @ rotation(16)), spectrum(table))
    assert concentration(table @ rotation(16), 5) == pytest.approx(concentration(table, 5))


def test_a_random_table_has_no_key_frequencies() -> None:
    """The power of a frequency is a chi-square of 2 D degrees of freedom, with the relative deviation D^-0.5: nearly
    normal, so that the five largest of 29 are those many deviations larger than the mean that normal variates are."""
    largest = np.sort(normal(4000, 29))[:, -5:].mean()
    assert 1.3 < largest < 1.5
    for width in (64, 256):
        shares = [concentration(normal(P, width, seed=seed), top=5) for seed in range(40)]
        np.testing.assert_allclose((np.mean(shares) / (5 / 29) - 1) * width**0.5, largest, rtol=0.1)


def test_gini() -> None:
    assert gini(np.ones(7)) == pytest.approx(0)
    assert gini(np.eye(7)[3]) == pytest.approx(6 / 7)
    values = np.abs(normal(9))
    pairs = np.abs(values[:, None] - values).mean() / (2 * values.mean())  # half the relative mean difference
    assert gini(values) == pytest.approx(pairs)
    assert gini(10 * values[::-1]) == pytest.approx(pairs)


@pytest.mark.parametrize("p", [2, 3, 7, 59, 97])
def test_a_step_of_multiplication_is_a_step_of_the_order(p: int) -> None:
    order = residues(p, "*")
    assert sorted(order) == list(range(1, p)) and order[0] == 1
    logarithm = dict(zip(order.tolist(), range(p - 1), strict=True))
    for a, b in np.random.default_rng(0).integers(1, p, (20, 2)).tolist():
        assert logarithm[a * b % p] == (logarithm[a] + logarithm[b]) % (p - 1)
    np.testing.assert_array_equal(residues(p, "/"), order)
    np.testing.assert_array_equal(residues(p, "-"), np.arange(p))


def data(operation: Literal["+", "-", "*", "/"], modulus: int = 13) -> TaskData:
    return TaskData(task=ModularArithmetic(modulus=modulus, operation=operation), batch=8, test=16)


def program(modulus: int = 13) -> tuple[Program, Any]:
    model = Decoder(vocab=modulus + 3, width=WIDTH, layers=1, block=Block(mixer=mha(2)))
    return Program(model, lift(Training(steps=4))[0], sharding.layout()), made(model)[1]


@pytest.mark.parametrize(("operation", "size"), [("+", 13), ("-", 13), ("*", 12), ("/", 12)])
def test_circles_of_the_right_group_are_recovered(operation: Any, size: int) -> None:
    """Rows that go round a circle with each step of the operation; the other tokens are anything."""
    compiled, params = program()
    table, order = np.array(params["embedding"]), residues(13, operation)
    table[1 + order] = waves(size, {2: 1.0, 5: 1.0}, WIDTH)
    params["embedding"] = table
    numbers, details = Fourier(top=2).prepare(compiled, data(operation))(params)
    assert set(numbers) == {"concentration", "gini"}
    assert numbers["concentration"] == pytest.approx(1, abs=1e-5)
    assert numbers["gini"] == pytest.approx(1 - 2 / 6, abs=1e-3)  # two equal norms of six
    np.testing.assert_allclose(details["spectrum"], size * np.array([0, 1, 0, 0, 1, 0]), atol=1e-4)
    other = "+" if operation in "*/" else "*"
    wrong = Fourier(top=2).prepare(compiled, data(other))(params)
    assert wrong.numbers["concentration"] < 0.9


def test_what_makes_no_sense_is_refused() -> None:
    compiled, _ = program()
    with pytest.raises(UserError, match=r"modulo 12 the numbers 1 .. 11 are no group of '\*'; take a prime"):
        Fourier().prepare(compiled, data("*", modulus=12))
    Fourier().prepare(compiled, data("+", modulus=12))
    with pytest.raises(UserError, match="top=6 are all of the 6 frequencies that 13 numbers have; lower top"):
        Fourier(top=6).prepare(compiled, data("+"))
    with pytest.raises(UserError, match="is for ModularArithmetic, not for RepeatedSequence"):
        Fourier().prepare(compiled, TaskData(task=RepeatedSequence()))
    with pytest.raises(UserError, match="this run reads Data; use TaskData"):
        Fourier().prepare(compiled, Data(corpus=Stdlib(), length=8))
    with pytest.raises(ConfigError, match="top=0 must be at least 1"):
        Fourier(top=0)


def test_a_run_leaves_rows_and_details(tmp_path: Path) -> None:
    run = Run(
        model=program()[0].model,
        data=data("+"),
        train=Training(steps=2),
        record=Recording(every=1, evaluations=1, measures=(Fourier(top=2), Fourier(name="first", top=1))),
    )
    train(run, tmp_path, Machine(quiet=True))
    rows, details = read(tmp_path / "rows.jsonl"), read(tmp_path / "details.jsonl")
    for name, top in (("fourier", 2), ("first", 1)):
        row = [row for row in rows if row["split"] == name][-1]
        power = np.array([row for row in details if row["split"] == name][-1]["spectrum"])
        table = np.asarray(load_run(tmp_path).params["embedding"], np.float64)[1:14]
        angle = 2 * np.pi * np.outer(np.arange(1, 7), np.arange(13)) / 13
        expected = 2 / 13 * ((np.cos(angle) @ table) ** 2 + (np.sin(angle) @ table) ** 2).sum(1)
        np.testing.assert_allclose(power, expected, rtol=1e-4)
        assert row["step"] == 2 and row["concentration"] == pytest.approx(np.sort(power)[-top:].sum() / power.sum())
        assert math.isfinite(row["gini"])
