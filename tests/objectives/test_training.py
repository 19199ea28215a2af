"""Every objective through the real loop: it learns, and is the same bits however it is interrupted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lm.config import ConfigError, replace
from lm.errors import UserError
from lm.evals import Positions
from lm.infer.diffusion import Unmasking, unmask
from lm.models import MTP, Electra, Headed, as_decoder
from lm.models.heads import token_classifier
from lm.objectives import (
    BlankInfilling,
    Denoiser,
    Denoising,
    Masked,
    MaskedDiffusion,
    Mixture,
    MultiToken,
    NextToken,
    PrefixLM,
    ReplacedTokens,
    SpanCorruption,
)
from lm.sharding import layout
from lm.train import AdamW, MuP
from lm.train.fleet import Fleet
from lm.train.group import Member, train_together
from lm.train.lane import Lane
from lm.train.load import evaluate_run, load_run
from lm.train.loop import Machine, train
from lm.train.memory import memory
from lm.train.rows import read
from tests.objectives.packed import BOTH, CAUSAL, ENCODER, EXTRA, MASKED, PREFIX, QUIET, TIMES, run, write_text

SPANS = SpanCorruption(sentinels=EXTRA - 2)
MIXED = Mixture(parts=(Denoiser(objective=SPANS, mode=0), Denoiser(objective=PrefixLM(), mode=1)))
EACH: dict[str, tuple[Any, Any]] = {
    "masked": (Masked(), MASKED),
    "diffusion": (MaskedDiffusion(), MASKED),
    "spans": (SPANS, BOTH),
    "prefix": (PrefixLM(), PREFIX),
    "blanks": (BlankInfilling(marks=EXTRA), PREFIX),
    "denoising": (Denoising(), BOTH),
    "mixture": (MIXED, BOTH),
    "replaced": (
        ReplacedTokens(),
        Electra(generator=MASKED, discriminator=Headed(body=ENCODER, head=token_classifier(1))),
    ),
    "ahead": (MultiToken(), MTP(decoder=CAUSAL, block=CAUSAL.pattern[0])),
}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text"))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read(folder / "rows.jsonl")]


def arrays(folder: Path) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(load_run(folder).params)]


@pytest.mark.parametrize(("objective", "model"), EACH.values(), ids=EACH)
def test_it_learns(text, tmp_path, objective, model):
    """The held-out loss falls; a finished run is evaluated to the same number; its numbers are numbers."""
    one = replace(run(text, model, objective, optimizer=AdamW(learning_rate=0.02)), {"record.evaluations": 2})
    result = train(one, tmp_path, QUIET)
    heldout = [row for row in rows_of(tmp_path) if row["split"] == "heldout"]
    assert heldout[-1]["loss"] < heldout[0]["loss"]
    assert heldout[-1]["bits_per_byte"] > 0 and 0 <= heldout[-1]["accuracy"] <= 1
    assert all(math.isfinite(v) for row in rows_of(tmp_path) for v in row.values() if isinstance(v, float))
    assert evaluate_run(load_run(tmp_path))["loss"] == pytest.approx(result["heldout_loss"], rel=1e-6)
    assert result["flops"] == one.cost.train_flops * 4 * 6
    assert memory(one).activations > 0


@pytest.mark.parametrize("name", ["spans", "replaced"])
def test_accumulated_and_dispatched_one_by_one_it_is_the_same_run(text, tmp_path, name):
    one = run(text, EACH[name][1], EACH[name][0])
    changes = {"train.accumulate": 2, "train.execution.steps_at_once": 1}
    train(one, tmp_path / "whole", QUIET)
    train(replace(one, changes), tmp_path / "parts", QUIET)
    assert_close(tmp_path / "whole", tmp_path / "parts")


def assert_close(folder: Path, other: Path) -> None:
    for a, b in zip(rows_of(folder), rows_of(other), strict=True):
        assert a.pop("split") == b.pop("split")
        assert a == pytest.approx(b, rel=2e-4)


class Kill(BaseException):
    pass


@pytest.mark.parametrize("name", ["diffusion", "spans"])
def test_resumed_it_is_the_same_bits(text, tmp_path, monkeypatch, name):
    one = run(text, EACH[name][1], EACH[name][0])
    train(one, tmp_path / "calm", QUIET)
    save, saved = Lane.save, []

    def killed(lane: Lane, step: int, state: Any) -> None:
        save(lane, step, state)
        lane.checkpoints.wait()
        saved.append(step)
        if saved == [2, 4]:
            raise Kill

    monkeypatch.setattr(Lane, "save", killed)
    with pytest.raises(Kill):
        train(one, tmp_path / "killed", QUIET)
    train(one, tmp_path / "killed", QUIET)
    assert saved == [2, 4, 6]
    assert rows_of(tmp_path / "calm") == rows_of(tmp_path / "killed")
    for a, b in zip(arrays(tmp_path / "calm"), arrays(tmp_path / "killed"), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["diffusion", "spans"])
def test_in_a_fleet_as_alone(text, tmp_path, name):
    """Runs of other seeds, of which one has other data: each as if it were alone."""
    one = run(text, EACH[name][1], EACH[name][0])
    runs = [one, replace(one, {"seed": 1, "data.seed": 2})]
    for i, each in enumerate(runs):
        train(each, tmp_path / "alone" / str(i), QUIET)
    quiet = Machine(quiet=True, layout=layout("data=2"))
    found = train_together([Member(each, tmp_path / "fleet" / str(i)) for i, each in enumerate(runs)], quiet)
    assert all(isinstance(result, dict) for result in found), found
    for i in range(2):
        assert_close(tmp_path / "alone" / str(i), tmp_path / "fleet" / str(i))
    assert Fleet(runs, quiet.layout).memory() > 0


def test_a_table_too_small_for_the_objectives_tokens_is_an_error(text, tmp_path):
    small = replace(run(text, MASKED, Masked()), {"model.body.vocab": 256})
    with pytest.raises(UserError, match=r"257 tokens, 1 of them the objective's, model.vocab=256 is too small"):
        train(small, tmp_path, QUIET)


def test_a_run_asks_its_objective_whether_the_model_fits(text):
    for model, objective, said in [(CAUSAL, Masked(), "causal=False"), (BOTH, NextToken(), "EncoderDecoder")]:
        with pytest.raises(ConfigError, match=said):
            run(text, model, objective)


def test_what_is_for_decoders_says_so(text, tmp_path):
    one = run(text, MASKED, Masked())
    with pytest.raises(ConfigError, match=r"MuP is for a Decoder.*Headed"):
        replace(one, {"train.parametrization": MuP(base_width=16)})
    with pytest.raises(ConfigError, match="lm generate is for a Decoder"):
        as_decoder(one.model, "lm generate")
    with pytest.raises(ConfigError, match="measure positions is for a Decoder"):
        train(replace(one, {"record.measures": (Positions(),)}), tmp_path, QUIET)
    sees_all = replace(PREFIX, {"block.mixer.mask.prefix": False, "block.mixer.mask.causal": False})
    measured = replace(run(text, sees_all, MaskedDiffusion()), {"record.measures": (Positions(),)})
    with pytest.raises(ConfigError, match="sees them"):
        train(measured, tmp_path / "other", QUIET)


def test_a_trained_diffusion_is_sampled(text, tmp_path):
    train(run(text, MASKED, MaskedDiffusion()), tmp_path, QUIET)
    loaded = load_run(tmp_path)
    how = Unmasking(steps=4, block=4, temperature=1.0)
    (row,) = unmask(loaded.run.model, loaded.params, [[97, 98]], 8, Unmasking(steps=4), mask=loaded.codec.vocab)
    assert len(loaded.codec.decode(row)) > 0
    assert len(unmask(loaded.run.model, loaded.params, [[]], 8, how, mask=256)[0]) == 8
