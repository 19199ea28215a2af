"""Every form is a bijection: what it saves it loads, and what it loads it saves."""

from __future__ import annotations

import numpy as np
import pytest

from lm.hub.forms import (
    After,
    Apart,
    ByHead,
    Dense,
    Each,
    Flat,
    Form,
    Joined,
    Same,
    Stacked,
    Table,
    Taps,
    Transposed,
    Unpaired,
)

QKV = [(16, 4, 6), (16, 2, 6), (16, 2, 6)]
CASES: dict[str, tuple[Form, list[tuple[int, ...]], list[tuple[int, ...]]]] = {
    "same": (Same(), [(3, 4)], [(3, 4)]),
    "flat": (Flat(), [(3, 4)], [(12,)]),
    "dense": (Dense(), [(5, 3, 4)], [(12, 5)]),
    "dense from heads": (Dense(2), [(3, 4, 5)], [(5, 12)]),
    "to a number": (Dense(), [(5,)], [(1, 5)]),
    "transposed": (Transposed(Dense(2)), [(3, 4, 5)], [(12, 5)]),
    "joined": (Joined(Dense()), QKV, [(48, 16)]),
    "joined biases": (Joined(Flat()), [(4, 6), (2, 6), (2, 6)], [(48,)]),
    "by head": (ByHead(2, Dense()), QKV, [(48, 16)]),
    "by head, biases": (ByHead(2, Flat()), [(4, 6), (2, 6), (2, 6)], [(48,)]),
    "each": (Each(Dense()), [(3, 4, 5)], [(5, 4)] * 3),
    "stacked": (Stacked(Joined(Dense())), [(3, 4, 5), (3, 4, 2)], [(3, 7, 4)]),
    "unpaired": (Unpaired(Dense(), 4), [(5, 3, 6)], [(18, 5)]),
    "unpaired from": (Unpaired(Dense(), 4, 2), [(5, 3, 7)], [(21, 5)]),
    "apart": (Joined(Apart((Dense(), Unpaired(Dense())))), [(5, 3), (5, 4)], [(7, 5)]),
    "table": (Table(7), [(8, 3)], [(7, 3)]),
    "after": (After(2), [(8, 3)], [(10, 3)]),
    "taps": (Joined(Taps()), [(3, 4, 5), (3, 2)], [(22, 1, 3)]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_there_and_back(name: str) -> None:
    form, ours, theirs = CASES[name]
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in ours]
    if name == "table":
        arrays[0][7:] = 0
    saved = form.save(arrays)
    assert [t.shape for t in saved] == theirs
    for found, array in zip(form.load(saved, ours), arrays, strict=True):
        np.testing.assert_array_equal(found, array)
    tensors = [rng.normal(size=shape) for shape in theirs]
    if name == "after":
        tensors[0][:2] = 0
    loaded = form.load(tensors, ours)
    assert [a.shape for a in loaded] == ours
    for found, tensor in zip(form.save(loaded), tensors, strict=True):
        np.testing.assert_array_equal(found, tensor)


def test_orders_by_hand() -> None:
    def rows(form: Form, sizes: list[int], count: int) -> list[list[int]]:
        tensor = np.arange(count, dtype=float)
        return [a.astype(int).tolist() for a in form.load([tensor], [(size,) for size in sizes])]

    assert rows(Joined(Flat()), [2, 1, 1], 4) == [[0, 1], [2], [3]]
    assert rows(ByHead(2, Flat()), [4, 2, 2], 8) == [[0, 1, 4, 5], [2, 6], [3, 7]]
    assert rows(Unpaired(Flat()), [6], 6) == [[0, 2, 4, 1, 3, 5]]
    assert rows(Unpaired(Flat(), 4, 1), [6], 6) == [[0, 1, 3, 2, 4, 5]]
