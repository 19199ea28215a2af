"""A run as a value: what it refuses, and what its name depends on."""

from __future__ import annotations

from typing import Any

import jax
import pytest
from flax import nnx

from lm.config import ConfigError, override, replace
from lm.data import Data
from lm.nn import Learned, param
from lm.train import WSD, AdamW, Lion, Recording, Run, Training
from lm.train.memory import memory
from tests.tiny import LENGTH, MODELS

RUN = Run(model=MODELS["learned"], train=Training(steps=20), data=Data(length=LENGTH, batch=8))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train.steps": 0}, "steps=0 must be at least 1"),
        ({"train.accumulate": 0}, "accumulate=0 must be at least 1"),
        ({"train.accumulate": 3}, "train.accumulate=3 must divide data.batch=8"),
        ({"train.clip": 0.0}, "clip=0.0 must be positive, or None for no clipping"),
        ({"train.ema": 1.0}, "ema=1.0 must be between 0 and 1"),
        ({"train.schedule.warmup": 20}, "warmup=20"),
        ({"train.schedule": WSD(warmup=18, decay=0.5)}, "overlap"),
        ({"train.objective.z_loss": -1.0}, "z_loss=-1.0 must not be negative"),
        ({"train.objective.label_smoothing": 1.0}, "label_smoothing=1.0 must be in [0, 1)"),
        ({"record.every": 0}, "every=0 must be at least 1"),
        ({"record.heldout_rows": 0}, "heldout_rows=0 must be at least 1"),
        ({"record.evaluations": -1}, "evaluations=-1"),
        ({"data.length": 17}, "16 learned positions, 17 were asked for"),
        ({"model.layers": 0}, "layers=0 must be at least 1"),
        ({"model.block": ()}, "empty pattern"),
        ({"model.softcap": 0.0}, "softcap=0.0 must be positive"),
        ({"model.block": MODELS["pattern"].pattern * 2}, "a pattern of 4 blocks doesn't fit layers=2"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**31}, "seed="),
    ],
    ids=str,
)
def test_a_run_that_can_not_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        replace(RUN, changes)
    assert said in str(error.value)


def test_the_last_step_is_evaluated_whatever_is_asked() -> None:
    for each in (0, 1, 2):
        assert 20 in replace(RUN, {"record.evaluations": each}).evaluation_steps()
    assert RUN.evaluation_steps() == {1, 2, 4, 8, 16, 20}
    assert replace(RUN, {"record": Recording(evaluations=0)}).evaluation_steps() == {20}


def test_a_run_is_named_by_its_content() -> None:
    assert RUN.id("a") == override(RUN, ["train.steps=20"]).id("a")
    assert (
        len({RUN.id("a"), RUN.id("b"), override(RUN, ["seed=1"]).id("a"), override(RUN, ["data.seed=1"]).id("a")}) == 4
    )


def test_memory_counts_parameters_and_states_exactly() -> None:
    count = 4 * sum(p.size for p in jax.tree.leaves(param.split(RUN.model.build(rngs=nnx.Rngs(params=0)))[1]))
    found = memory(RUN)
    assert found.params == found.gradients == count
    assert memory(replace(RUN, {"train.ema": 0.9})).params == 2 * count
    assert 2 * count <= found.optimizer <= 2 * count + 64
    assert memory(replace(RUN, {"train.optimizer": Lion()})).optimizer < found.optimizer
    assert found.total == found.params + found.gradients + found.optimizer + found.activations
    halves = memory(replace(RUN, {"train.accumulate": 2}))
    assert 0 < halves.activations < 0.7 * found.activations
    assert 0 < memory(replace(RUN, {"train.execution.remat": "full"})).activations < found.activations


def test_a_longer_table_of_positions_lets_rows_be_longer() -> None:
    longer = replace(RUN, {"model.position": Learned(length=64), "data.length": 64})
    assert longer.tokens == 20 * 8 * 64 and longer.train.optimizer == AdamW()
