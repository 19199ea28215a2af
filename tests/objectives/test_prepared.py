"""Prepared data: a function of the seed and the batch's number on any number of hosts, and who can learn what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lm.config import ConfigError, replace
from lm.data import Data, DataError, Text, load
from lm.data.packing import concatenate
from lm.models import MTP, Classifier, Electra, Headed
from lm.models.heads import token_classifier
from lm.nn import Learned, Mask
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
    Prepared,
    ReplacedTokens,
    SpanCorruption,
    prepared,
    shapes,
)
from lm.objectives.documents import documents
from lm.objectives.draws import draws
from tests.objectives.packed import (
    BOTH,
    CAUSAL,
    CODEC,
    ENCODER,
    EXTRA,
    MASKED,
    PREFIX,
    Rows,
    packed,
    prepare,
    write_text,
)

ELECTRA = Electra(generator=MASKED, discriminator=Headed(body=ENCODER, head=token_classifier(1)))
AHEAD = MTP(decoder=CAUSAL, block=CAUSAL.pattern[0])
SPANS = SpanCorruption(sentinels=EXTRA - 2)
MIXED = Mixture(parts=(Denoiser(objective=SPANS, mode=0), Denoiser(objective=PrefixLM(), mode=1)))
MARKS = BlankInfilling(marks=EXTRA)

# each objective with each kind of model that can learn it
EACH: dict[str, tuple[Any, Any]] = {
    "masked": (Masked(), MASKED),
    "masked, words": (Masked(unit="word"), MASKED),
    "diffusion": (MaskedDiffusion(), MASKED),
    "diffusion, decoder": (MaskedDiffusion(), replace(CAUSAL, {"block.mixer.mask": Mask(causal=False)})),
    "replaced": (ReplacedTokens(), ELECTRA),
    "spans": (SPANS, BOTH),
    "spans, prefix": (SPANS, PREFIX),
    "prefix": (PrefixLM(), PREFIX),
    "prefix, encoder-decoder": (PrefixLM(), BOTH),
    "blanks": (MARKS, PREFIX),
    "denoising": (Denoising(), BOTH),
    "mixture": (MIXED, BOTH),
}
PARAMS = pytest.mark.parametrize(("objective", "model"), EACH.values(), ids=EACH)


def equal(a, b) -> bool:
    return a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


@PARAMS
def test_a_batch_is_a_function_of_seed_and_number_on_any_number_of_hosts(objective, model):
    dataset = Prepared(Rows(), objective, model)
    one = dataset.batch(3)
    assert equal(one, Prepared(Rows(), objective, model).batch(3))
    assert equal(one, concatenate([dataset.batch(3, host, 2) for host in (0, 1)]))
    assert equal(one, concatenate([dataset.batch(3, host, 4) for host in range(4)]))
    other = Prepared(Rows(seed=1), objective, model).batch(3)  # these rows have no order that a seed would change
    assert not equal(one, other)
    assert not equal(one, objective.prepare(dataset.inner.batch(3), draws(0, 4, 0, 4, 4), CODEC, model))


@PARAMS
def test_what_is_held_out_is_prepared_alike_at_every_evaluation_and_for_every_seed(objective, model):
    first, again, other = (list(Prepared(Rows(seed=seed), objective, model).heldout_batches()) for seed in (0, 0, 1))
    assert len(first) == 2 and all(map(equal, first, again)) and all(map(equal, first, other))
    halves = [list(Prepared(Rows(), objective, model).heldout_batches(None, host, 2)) for host in (0, 1)]
    assert all(equal(a, concatenate(list(parts))) for a, parts in zip(first, zip(*halves, strict=True), strict=True))
    assert not equal(first[0], Prepared(Rows(), objective, model).batch(0))


@PARAMS
def test_shapes_are_those_of_batches(objective, model):
    batch = Prepared(Rows(), objective, model).batch(0)
    wanted = shapes(objective, model, 4, 48)
    assert {n: (x.shape, x.dtype) for n, x in batch.items()} == {n: (x.shape, x.dtype) for n, x in wanted.items()}


@PARAMS
def test_bytes_are_those_of_the_text_that_is_predicted(objective, model):
    dataset = Prepared(Rows(), objective, model)
    batch = dataset.batch(0)
    targets = batch["targets"][batch["weights"] > 0]
    assert dataset.bytes_of(batch) == sum(len(CODEC.pieces[t]) for t in targets if t < CODEC.vocab)
    assert dataset.vocab == CODEC.vocab + objective.extra > batch["tokens"].max()
    if "encoder_tokens" in batch:
        assert dataset.vocab > batch["encoder_tokens"].max()


@PARAMS
def test_a_document_is_prepared_from_itself_alone(objective, model):
    """Another text in one document of a row changes no token of the others."""
    batch = packed(2)
    changed = {name: x.copy() for name, x in batch.items()}
    row = next(r for r in range(4) if len(documents(batch, r)) > 1)
    part = documents(batch, row)[1]
    inside = changed["targets"][row, part.place]
    inside[inside != CODEC.eot] = 0
    changed["tokens"][row, 1:] = changed["targets"][row, :-1]
    one, other = prepare(objective, model, batch), prepare(objective, model, changed)
    moved = False
    for prefix in ("", "encoder_") if "encoder_tokens" in one else ("",):
        differs = one[f"{prefix}tokens"] != other[f"{prefix}tokens"]
        np.testing.assert_array_equal(one[f"{prefix}segments"], other[f"{prefix}segments"])
        belongs = abs(one[f"{prefix}segments"]) == part.segment
        if prefix == "" and isinstance(objective, PrefixLM) and model is PREFIX:
            belongs = np.roll(belongs, 1, axis=1)  # these rows are as they were: a token is read one place later
        assert not differs[np.arange(4) != row].any()
        if not isinstance(objective, Masked) or objective.unit == "token":  # words are cut elsewhere in another text
            assert not (differs & ~belongs)[row].any()
        moved |= differs.any()
    assert moved


def test_rows_of_a_batch_differ():
    batch = packed(0, rows=4, length=40, shortest=200, longest=200)
    same = {name: np.repeat(x[:1], 4, axis=0) for name, x in batch.items()}
    found = prepare(Masked(), MASKED, same)["weights"]
    assert len({tuple(row) for row in found}) == 4


def test_next_token_reads_the_data_as_it_is():
    dataset = Rows()
    assert prepared(dataset, NextToken(), CAUSAL) is dataset
    assert prepared(dataset, MultiToken(), AHEAD) is dataset
    assert isinstance(prepared(dataset, Masked(), MASKED), Prepared)


def test_a_batch_without_anything_to_predict_is_an_error(tmp_path):
    data = Data(corpus=Text(path=str(write_text(tmp_path))), length=2, batch=1, heldout=0.2)
    with pytest.raises(DataError, match="too short"):
        for n in range(20):
            Prepared(load(data), SPANS, BOTH).batch(n)


WRONG: dict[str, tuple[Any, Any, str]] = {
    "masked, causal": (Masked(), CAUSAL, r"Mask\(causal=False\)"),
    "masked, no logits": (Masked(), ENCODER, "head=MaskedLM"),
    "masked, encoder-decoder": (Masked(), BOTH, "EncoderDecoder"),
    "masked, classes": (Masked(), Headed(body=ENCODER, head=Classifier(labels=2)), "Headed with Classifier"),
    "diffusion, causal": (MaskedDiffusion(), CAUSAL, r"Mask\(causal=False\)"),
    "spans, causal": (SPANS, CAUSAL, r"Mask\(prefix=True\)"),
    "spans, encoder": (SPANS, MASKED, "earlier ones"),
    "prefix, causal": (PrefixLM(), CAUSAL, r"Mask\(prefix=True\)"),
    "denoising, electra": (Denoising(), ELECTRA, "Electra"),
    "replaced, no electra": (ReplacedTokens(), MASKED, r"Electra\(generator"),
    "ahead, decoder": (MultiToken(), CAUSAL, r"MTP\(decoder"),
    "next, bidirectional": (NextToken(), MASKED, "sees them"),
    "next, encoder-decoder": (NextToken(), BOTH, "EncoderDecoder"),
    "next, sees the answer in a decoder": (
        SPANS,
        replace(BOTH, {"decoder.block.mixer.mask": Mask(causal=False)}),
        "earlier ones",
    ),
}


@pytest.mark.parametrize(("objective", "model", "said"), WRONG.values(), ids=WRONG)
def test_a_model_that_can_not_learn_it_is_refused(objective, model, said):
    with pytest.raises(ConfigError, match=said):
        objective.check(model, 16)


@PARAMS
def test_one_that_can_is_not(objective, model):
    objective.check(model, 48)


def test_the_real_lengths_are_checked_and_paid_for():
    room = SPANS.room(48)
    assert SPANS.cost(BOTH, 48) == BOTH.cost(room.sources, room.targets)
    assert SPANS.cost(PREFIX, 48) == PREFIX.cost(room.both)
    assert PrefixLM().cost(PREFIX, 48) == PREFIX.cost(48)
    assert MaskedDiffusion().cost(MASKED, 48) == MASKED.cost(48)
    short = replace(PREFIX, {"position": Learned(length=48)})
    PrefixLM().check(short, 48)
    with pytest.raises(ConfigError, match="learned positions"):
        SPANS.check(short, 48)
    both = replace(BOTH, {"decoder.position": Learned(length=room.targets)})
    SPANS.check(both, 48)
    with pytest.raises(ConfigError, match="learned positions"):
        PrefixLM().check(both, 48)
