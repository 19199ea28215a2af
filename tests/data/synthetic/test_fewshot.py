"""Labels known or shown: rows by plain Python, and the best accuracies by counting."""

import collections
import re

import numpy as np
import pytest

from lm.config import ConfigError
from lm.data.examples import SymbolCodec
from lm.data.synthetic.fewshot import FewShot
from lm.data.synthetic.task import MARK, Examples, uniforms

TASKS = [
    FewShot(),
    FewShot(labels=5, ways=2, shots=6, usual=0.3, bare=0.6),
    FewShot(classes=9, labels=3, ways=6, shots=12, usual=0.0),
]
many = pytest.mark.parametrize("task", TASKS, ids=str)


def made(task: FewShot, count: int) -> Examples:
    return task.make(uniforms(1, 0, 0, count, task.draws))


def pairs(task: FewShot, row: np.ndarray) -> list[tuple[int, int]]:
    """Items and labels as the text has them, the query last."""
    return [(int(x), int(y)) for x, y in re.findall(r" x(\d+) y(\d+)", SymbolCodec(task.symbols).decode(row))]


@many
def test_rows_are_as_documented(task):
    examples = made(task, 600)
    kinds = task.kinds(examples)
    assert set(kinds.tolist()) == {0, 1}
    for row, mask, kind in zip(*examples, kinds.tolist(), strict=True):
        *shown, (asked, answer) = pairs(task, row)
        if kind == 0:
            assert not shown and np.flatnonzero(mask).tolist() == [2] and (row[3:] == MARK).all()
            assert row[1:3].tolist() == [1 + asked, 1 + task.classes + answer]
            continue
        assert len(shown) == task.shots
        items = [item for item, _ in (*shown, (asked, answer))]
        assert np.flatnonzero(mask).tolist() == [2 * i + 2 for i, item in enumerate(items) if item in items[:i]]
        assert mask[task.length]  # the query's
        by_item = dict(shown)
        assert len(by_item) == task.ways and all(by_item[item] == label for item, label in shown)
        assert set(collections.Counter(item for item, _ in shown).values()) == {task.shots // task.ways}
        assert by_item[asked] == answer  # what best_shown says is always right
    assert task.best_shown == 1


@many
def test_labels_are_the_usual_ones_or_all_different(task):
    usual = task.usual_labels
    examples = made(task, 2000)
    as_usual = 0
    rows = [dict(pairs(task, row)) for row in examples.tokens[task.kinds(examples) == 1]]
    for labels in rows:
        if all(usual[item] == label for item, label in labels.items()):
            as_usual += 1
            continue
        counts = collections.Counter(labels.values())
        assert len(counts) == min(task.ways, task.labels) and set(counts.values()) == {max(1, task.ways // task.labels)}
    # drawn labels are the usual ones by chance, with a probability of at most 1 / labels (that of one of them)
    low, high = task.usual, task.usual + (1 - task.usual) / task.labels
    spread = 4 * 0.5 / np.sqrt(len(rows))
    assert low - spread < as_usual / len(rows) < high + spread


@many
def test_the_best_accuracy_of_bare_rows_is_that_of_the_usual_label(task):
    examples = made(task, 40_000)
    bare = examples.tokens[task.kinds(examples) == 0]
    share = len(bare) / 40_000
    assert share == pytest.approx(task.bare, abs=4 * np.sqrt(task.bare * (1 - task.bare) / 40_000))
    items, labels = bare[:, 1] - 1, bare[:, 2] - 1 - task.classes
    counts = np.zeros((task.classes, task.labels), int)
    np.add.at(counts, (items, labels), 1)
    if task.usual > 0:  # or there is nothing to tell which it is
        assert np.array_equal(counts.argmax(1), task.usual_labels)
    right = (labels == task.usual_labels[items]).mean()
    p = task.best_bare
    assert right == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / len(bare)))
    # what isn't usual is equally likely: nothing better can be said
    others = counts[np.arange(task.labels) != task.usual_labels[:, None]].reshape(task.classes, -1).sum(0)
    rest = (1 - p) / (task.labels - 1)
    assert np.abs(others / len(bare) - rest).max() < 4 * np.sqrt(rest / len(bare))


def test_drawn_labels_tell_nothing_of_the_usual_ones():
    task = FewShot(usual=0.0, bare=0.0)
    tokens = made(task, 20_000).tokens
    items, labels = tokens[:, -2] - 1, tokens[:, -1] - 1 - task.classes
    table = np.zeros((4, 4))
    np.add.at(table, (task.usual_labels[items], labels), 1)
    assert np.abs(table - 1250).max() < 4 * np.sqrt(20_000 * 1 / 16 * 15 / 16)


def test_usual_labels_are_balanced_and_stay():
    assert (np.bincount(FewShot().usual_labels) == 8).all()
    assert sorted(np.bincount(FewShot(classes=11, labels=3, ways=2).usual_labels).tolist()) == [3, 4, 4]
    assert np.array_equal(FewShot(usual=0.1).usual_labels, FewShot(bare=0.9).usual_labels)


def test_accuracies_of_theory():
    assert FewShot(usual=0.5, labels=4).best_bare == 0.625
    assert FewShot(usual=0.0, labels=4).best_bare == 0.25 and FewShot(usual=1.0).best_bare == 1.0


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="shots=6 must be a multiple of ways=4"):
        FewShot(shots=6)
    with pytest.raises(ConfigError, match="ways=40 must be from 1 to its classes=32"):
        FewShot(ways=40, shots=40)
    with pytest.raises(ConfigError, match="labels=1 must be at least 2"):
        FewShot(labels=1)
    with pytest.raises(ConfigError, match=r"FewShot.bare=1\.5 is a probability"):
        FewShot(bare=1.5)
    with pytest.raises(ConfigError, match=r"FewShot.usual=-0\.1 is a probability"):
        FewShot(usual=-0.1)
