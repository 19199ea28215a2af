"""Examples of a task as data: the same however they are cut, split by what is asked, and read back as text."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from lm.config import ConfigError, replace
from lm.data import DataError, TaskData, load
from lm.data import examples as module
from lm.data.dataset import DIRECT
from lm.data.examples import SymbolCodec, as_batch, is_heldout
from lm.data.synthetic import Dyck, MarkovChains, ModularArithmetic, ModularSum, Reversing
from lm.data.synthetic.task import MARK, Examples

DATA = TaskData(task=Reversing(alphabet=5, shortest=2, longest=5), batch=12, heldout=0.2, test=30, seed=5)
POOLED = replace(DATA, {"pool": 20})


def same(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in a)


def joined(batches: Any) -> dict[str, np.ndarray]:
    parts = list(batches)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def rows(batch: Any) -> list[tuple[int, ...]]:
    """Whole rows: what is read, and the last token, which is only predicted."""
    return [tuple(row) for row in np.column_stack([batch["tokens"], batch["targets"][:, -1]]).tolist()]


def asked(examples: Examples) -> set[tuple[int, ...]]:
    return {tuple(row) for row in np.where(examples.answers, -1, examples.tokens).tolist()}


# ---- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [DATA, POOLED], ids=["endless", "pool"])
def test_a_batch_is_the_same_however_it_is_cut(data: TaskData) -> None:
    dataset = load(data)
    for n in (0, 1, 7):  # of the pool, 1 and 7 cross into the next epoch
        whole = dataset.batch(n)
        for hosts in (2, 3, 12):
            assert same(whole, joined(dataset.batch(n, host, hosts) for host in range(hosts)))
        smaller = load(replace(data, {"batch": 4}))
        assert same(whole, joined(smaller.batch(3 * n + part) for part in range(3)))


def test_batches_are_read_ahead_unchanged() -> None:
    dataset = load(POOLED)
    batches = dataset.batches(start=3, host=1, hosts=2, prefetch=3, workers=2)
    for n in range(3, 3 + DIRECT + 4):
        assert same(next(batches), dataset.batch(n, 1, 2))


def test_a_batch_is_what_a_model_reads() -> None:
    tokens = np.array([[MARK, 3, 4, 5, MARK], [MARK, 6, 4, 7, 8]])
    answers = np.array([[0, 0, 0, 1, 0], [0, 0, 0, 1, 1]], bool)
    batch = as_batch(Examples(tokens, answers))
    assert batch["tokens"].tolist() == [[0, 3, 4, 5], [0, 6, 4, 7]]
    assert batch["targets"].tolist() == [[3, 4, 5, 0], [6, 4, 7, 8]]
    assert batch["weights"].tolist() == [[0, 0, 1, 0], [0, 0, 1, 1]]
    assert batch["positions"].tolist() == [[0, 1, 2, 3]] * 2 and (batch["segments"] == 1).all()
    assert {name: x.dtype.name for name, x in batch.items()} == {
        **dict.fromkeys(("tokens", "targets", "positions", "segments"), "int32"),
        "weights": "float32",
    }


def test_what_there_is_no_batch_of() -> None:
    dataset = load(DATA)
    with pytest.raises(DataError, match="batches are numbered from 0"):
        dataset.batch(-1)
    with pytest.raises(DataError, match="12 can't be shared equally by 5 hosts"):
        dataset.batch(0, 0, 5)


def test_a_pool_has_so_many_examples_each_once_an_epoch() -> None:
    dataset = load(replace(POOLED, {"batch": 4}))
    epochs = [rows(joined(dataset.batch(5 * epoch + n) for n in range(5))) for epoch in range(3)]
    pool = rows(as_batch(POOLED.train_examples(np.arange(20))))
    assert len(set(pool)) > 10
    for epoch in epochs:
        assert sorted(epoch) == sorted(pool)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_without_a_pool_examples_are_new() -> None:
    task = Reversing(alphabet=26, shortest=8, longest=8)
    dataset = load(replace(DATA, {"task": task}))
    seen = rows(joined(map(dataset.batch, range(20))))
    assert len(set(seen)) == len(seen) == 240


def test_an_example_has_its_number() -> None:
    numbers = np.array([7, 3, 3, 50])
    found = DATA.train_examples(numbers)
    whole = DATA.train_examples(np.arange(60))
    assert np.array_equal(found.tokens, whole.tokens[numbers]) and np.array_equal(found.answers, whole.answers[numbers])
    assert np.array_equal(DATA.test_examples(4, 3).tokens, DATA.test_examples().tokens[4:7])


# ---- the split -------------------------------------------------------------------------------------------------------


def test_held_out_are_other_questions_and_the_same_for_all_seeds() -> None:
    held = DATA.test_examples()
    assert len(held.tokens) == 30
    for seed in (5, 6):
        other = replace(DATA, {"seed": seed})
        trained = other.train_examples(np.arange(2000))
        assert len(asked(trained)) > 500 and not asked(trained) & asked(held)
        assert np.array_equal(other.test_examples().tokens, held.tokens)
    a, b = (load(replace(DATA, {"seed": seed})).batch(0)["tokens"] for seed in (5, 6))
    assert not np.array_equal(a, b)


def test_every_question_has_a_side_and_training_meets_all_of_its_own() -> None:
    data = TaskData(task=ModularArithmetic(modulus=11), heldout=0.3)
    trained, held = asked(data.train_examples(np.arange(3000))), asked(data.test_examples(count=3000))
    assert len(trained | held) == 121 and not trained & held
    assert abs(len(held) - 0.3 * 121) < 3 * (121 * 0.3 * 0.7) ** 0.5


def test_the_share_is_about_what_is_asked() -> None:
    examples = Examples(np.arange(60_000).reshape(20_000, 3), np.zeros((20_000, 3), bool))
    for share in (0.01, 0.3, 0.9):
        found = is_heldout(examples, share)
        assert abs(found.mean() - share) < 4 * (share * (1 - share) / 20_000) ** 0.5
    # what is held out at a small share is so at a larger one
    assert (is_heldout(examples, 0.3) <= is_heldout(examples, 0.9)).all()


def test_a_side_is_of_the_question_whatever_the_answer() -> None:
    rng = np.random.default_rng(0)
    tokens, answers = rng.integers(1, 9, (500, 6)), np.zeros((500, 6), bool)
    tokens[:, 0], answers[:, 4:] = MARK, True
    other = tokens.copy()
    other[:, 4:] = rng.integers(1, 9, (500, 2))
    sides = is_heldout(Examples(tokens, answers), 0.5)
    assert np.array_equal(sides, is_heldout(Examples(other, answers), 0.5))
    other[:, 2] = 1 + other[:, 2] % 8
    assert not np.array_equal(sides, is_heldout(Examples(other, answers), 0.5))


def test_a_row_that_is_all_answer_is_its_own_question() -> None:
    data = TaskData(task=MarkovChains(states=2, length=6), heldout=0.3)
    trained, held = data.train_examples(np.arange(1000)).tokens, data.test_examples().tokens
    trained, held = (set(map(tuple, x.tolist())) for x in (trained, held))
    assert not trained & held and len(trained | held) == 2**6 and 5 < len(held) < 35


def test_nothing_held_out_is_measured_by_other_examples_of_the_same_questions() -> None:
    data = TaskData(task=ModularSum(terms=1, modulus=3), heldout=0.0, test=50)
    assert asked(data.test_examples()) == asked(data.train_examples(np.arange(50)))
    dyck = TaskData(task=Dyck(length=30), heldout=0.0)
    rows = dyck.test_examples().tokens, dyck.train_examples(np.arange(512)).tokens
    assert not {tuple(x) for x in rows[0].tolist()} & {tuple(x) for x in rows[1].tolist()}


@pytest.mark.parametrize(("share", "side"), [(0.001, "held out"), (0.999, "trained on")])
def test_a_split_that_cannot_be_made_is_said_at_once(monkeypatch: pytest.MonkeyPatch, share: float, side: str) -> None:
    made: list[int] = []
    make = ModularSum.make

    def counted(self: ModularSum, u: np.ndarray) -> Examples:
        made.append(len(u))
        return make(self, u)

    monkeypatch.setattr(ModularSum, "make", counted)
    data = TaskData(task=ModularSum(terms=2, modulus=2), heldout=share)
    for read in (data.test_examples, lambda: load(data).batch(0)):
        made.clear()
        with pytest.raises(
            DataError, match=rf"heldout={share:g} leaves hardly a question of ModularSum.* to be {side}"
        ):
            read()
        assert sum(made) < 6000
    assert len(load(replace(data, {"heldout": 0.0})).batch(0)["tokens"]) == 64


def test_a_split_of_few_questions_that_can_be_made_is() -> None:
    data = TaskData(task=ModularSum(terms=2, modulus=2), heldout=0.5)
    trained, held = asked(data.train_examples(np.arange(200))), asked(data.test_examples())
    assert len(trained | held) == 4 and trained and held and not trained & held


def test_drawing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIES", 3)
    with pytest.raises(DataError, match=r"hardly a question that is held out at heldout=0\.2"):
        DATA.test_examples()


# ---- what is held out, as batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [None, 5, 12, 17, 100])
def test_held_out_batches_have_each_example_once(count: int | None) -> None:
    dataset = load(DATA)
    wanted = as_batch(DATA.test_examples(count=min(count or 30, 30)))
    batches = list(dataset.heldout_batches(count))
    whole, n = joined(batches), len(wanted["tokens"])
    assert all(batch["tokens"].shape == (12, DATA.length) for batch in batches) and len(batches) == -(-n // 12)
    assert same({name: x[:n] for name, x in whole.items()}, wanted)
    assert not any(whole[name][n:].any() for name in whole)  # no target counts, and nothing is a document
    for hosts in (2, 4):
        each = zip(*(dataset.heldout_batches(count, host, hosts) for host in range(hosts)), strict=True)
        for batch, parts in zip(batches, each, strict=True):
            assert same(batch, joined(parts))


# ---- names -----------------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_of_what_the_examples_are_made_of() -> None:
    changes = ({"task": Reversing(alphabet=4)}, {"heldout": 0.3}, {"heldout": 0.0}, {"pool": 20}, {"test": 31})
    found = {DATA.fingerprint(), *(replace(DATA, change).fingerprint() for change in changes)}
    assert len(found) == len(changes) + 1
    assert replace(DATA, {"seed": 9, "batch": 24}).fingerprint() == DATA.fingerprint() == load(DATA).fingerprint
    contents = [replace(DATA, change).contents for change in ({}, *changes)]
    assert len(set(contents)) == len(contents)
    assert replace(DATA, {"seed": 9, "batch": 24}).contents == DATA.contents


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"test": 0}, "TaskData.test=0 must be at least 1"),
        ({"pool": 0}, "TaskData.pool=0 must be at least 1"),
        ({"batch": 0}, "TaskData.batch=0 must be at least 1"),
        ({"heldout": 1.0}, "less than 1"),
        ({"seed": 1 << 63}, "below 2"),
    ],
)
def test_numbers_that_cannot_be(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(DATA, change)


def test_symbols_are_read_longest_first_and_nothing_else_is() -> None:
    codec = SymbolCodec(["a", "ab", "abc", " 1", " 10", "."])
    for text, ids in (("abcaba", [3, 2, 1]), (" 10 1.", [5, 4, 6]), ("", [])):
        assert codec.encode(text).tolist() == ids
        assert codec.decode([MARK, *ids, MARK]) == text
    assert codec.vocab == 7 and codec.eot == MARK
    assert codec.token_bytes.tolist() == [0, 1, 2, 3, 2, 3, 1]
    for text in ("abd", "1", " 1\n", "A"):
        with pytest.raises(DataError, match="no symbol of the task; its symbols: a ab abc"):
            codec.encode(text)


def test_a_codec_is_made_again_from_its_text() -> None:
    codec = load(DATA).tokenizer
    again = DATA.codec(codec.dumps())
    assert isinstance(again, SymbolCodec) and again.symbols == DATA.task.symbols == tuple(json.loads(codec.dumps()))
    assert again.encode("cab>bac").tolist() == codec.encode("cab>bac").tolist() == [3, 1, 2, 6, 2, 1, 3]
    assert DATA.codec(SymbolCodec(["é", "->"]).dumps()).encode("->é").tolist() == [2, 1]
