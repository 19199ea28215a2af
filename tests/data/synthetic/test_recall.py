"""Recall: what is asked was told, and the answer is what was told of it."""

import itertools

import numpy as np
import pytest

from lm.config import ConfigError
from lm.data import TaskData
from lm.data.examples import SymbolCodec
from lm.data.synthetic.recall import KeyValueRecall, MultiHop, different
from lm.data.synthetic.task import MARK, Task, uniforms

RECALL = [KeyValueRecall(), KeyValueRecall(pairs=3, keys=3, values=2, queries=3), KeyValueRecall(pairs=1, queries=1)]
HOPS = [MultiHop(), MultiHop(hops=6), MultiHop(entities=5, facts=5, hops=1), MultiHop(entities=2, facts=2, hops=1)]

tasks = pytest.mark.parametrize("task", [*RECALL, *HOPS], ids=str)


@pytest.mark.parametrize("task", RECALL, ids=str)
def test_a_query_is_answered_as_it_was_told(task: KeyValueRecall):
    tokens, answers = task.make(uniforms(1, 0, 0, 300, task.draws))
    assert tokens.shape == answers.shape == (300, task.length + 1)
    first = set()
    for row, answer in zip(tokens.tolist(), answers.tolist(), strict=True):
        told = [tuple(row[1 + 2 * i : 3 + 2 * i]) for i in range(task.pairs)]
        asked = [tuple(row[1 + 2 * i : 3 + 2 * i]) for i in range(task.pairs, task.pairs + task.queries)]
        assert row[0] == MARK and len(row) == 1 + 2 * (len(told) + len(asked))
        facts = dict(told)
        assert len(facts) == task.pairs and len(dict(asked)) == task.queries
        assert all(1 <= k <= task.keys < v <= task.keys + task.values for k, v in told)
        assert [facts[k] for k, _ in asked] == [v for _, v in asked]
        assert answer == [False] * (1 + 2 * task.pairs) + [False, True] * task.queries
        first.add(told.index(asked[0]))
    assert first == set(range(task.pairs))  # where the first query was told says nothing


@pytest.mark.parametrize("task", HOPS, ids=str)
def test_an_answer_is_some_hops_from_the_start(task: MultiHop):
    tokens, answers = task.make(uniforms(1, 0, 0, 300, task.draws))
    assert tokens.shape == answers.shape == (300, task.length + 1)
    assert answers[:, -1].all() and not answers[:, :-1].any()
    places = [set() for _ in range(task.hops)]
    for row in tokens.tolist():
        facts = {row[1 + 2 * i]: row[2 + 2 * i] for i in range(task.facts)}
        order = list(facts)
        mark, question, start, answer = row[0], *row[-3:]
        assert mark == MARK and question == task.entities + 1 and set(order) <= set(range(1, task.entities + 1))
        round_trip = [start]
        for _ in range(task.facts):
            round_trip.append(facts[round_trip[-1]])
        assert len(facts) == len(set(round_trip)) == task.facts and round_trip[-1] == start  # one cycle of all facts
        assert answer == round_trip[task.hops] != start
        for hop in range(task.hops):
            places[hop].add(order.index(round_trip[hop]))
    assert all(found == set(range(task.facts)) for found in places)  # the order of facts says nothing


def test_different_numbers_in_all_orders_equally_often():
    """From one example in each cell of the unit cube."""
    u = np.array([[(i + 0.5) / 4, (j + 0.5) / 3] for i in range(4) for j in range(3)])
    assert sorted(map(tuple, different(u, 4).tolist())) == sorted(itertools.permutations(range(4), 2))
    assert different(np.full((1, 4), 1 - 2.0**-53), 4).tolist() == [[3, 0, 1, 2]]
    assert different(np.zeros((1, 4)), 4).tolist() == [[0, 1, 2, 3]]


@tasks
def test_an_example_is_a_function_of_its_number(task: Task):
    whole = task.make(uniforms(3, 0, 5, 12, task.draws))
    for first, count in ((0, 1), (1, 4), (5, 7)):
        part = task.make(uniforms(3, 0, 5 + first, count, task.draws))
        for a, b in zip(part, whole, strict=True):
            np.testing.assert_array_equal(a, b[first : first + count])


@tasks
def test_batches_of_any_size_have_the_same_rows(task: Task):
    small, large = (TaskData(task=task, batch=b, heldout=0.0).load() for b in (4, 8))
    for name, x in large.batch(1).items():
        np.testing.assert_array_equal(np.concatenate([small.batch(2)[name], small.batch(3)[name]]), x)


@tasks
def test_text_and_back(task: Task):
    codec = SymbolCodec(task.symbols)
    assert codec.vocab == task.vocab
    for row in task.make(uniforms(0, 0, 0, 50, task.draws)).tokens:
        assert row[1:].min() > 0 and row.max() < task.vocab
        np.testing.assert_array_equal(codec.encode(codec.decode(row)), row[1:])


def test_texts():
    assert SymbolCodec(KeyValueRecall().symbols).decode([0, 1, 65, 64, 128]) == " k0 v0 k63 v63"
    assert SymbolCodec(MultiHop().symbols).decode([0, 1, 32, 33, 1]) == " e0 e31 ? e0"


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (KeyValueRecall, {"pairs": 0}, r"KeyValueRecall\.pairs=0 must be from 1 to its 64 keys"),
        (KeyValueRecall, {"pairs": 65}, r"KeyValueRecall\.pairs=65 must be from 1 to its 64 keys"),
        (KeyValueRecall, {"queries": 0}, r"KeyValueRecall\.queries=0 must be from 1 to its 8 pairs"),
        (KeyValueRecall, {"queries": 9}, r"KeyValueRecall\.queries=9 must be from 1 to its 8 pairs"),
        (KeyValueRecall, {"values": 1}, r"KeyValueRecall\.values=1 must be at least 2"),
        (MultiHop, {"facts": 33}, r"MultiHop\.facts=33 must be from 2 to its 32 entities"),
        (MultiHop, {"facts": 1}, r"MultiHop\.facts=1 must be from 2"),
        (MultiHop, {"hops": 0}, r"MultiHop\.hops=0 must be from 1 to 6"),
        (MultiHop, {"hops": 7}, r"MultiHop\.hops=7 must be from 1 to 6"),
    ],
)
def test_bad_fields_are_refused(cls: type, fields: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        cls(**fields)
