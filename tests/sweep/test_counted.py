"""N-gram models beside an ablation's arms: of the text that its runs read, asked for what they are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lm.data import Data, Text
from lm.early import NGram, of_batches
from lm.models import Decoder
from lm.nn import Block, mha, swiglu
from lm.sweep import Ablation, counted
from lm.sweep.counted import ngram_table
from lm.sweep.manifest import Entry, manifest
from lm.train import Recording, Run, Training


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> Ablation:
    folder, rng = tmp_path_factory.mktemp("text"), np.random.default_rng(0)
    for i in range(40):
        (folder / f"{i}.txt").write_text("".join(rng.choice(list("abcdefgh \n"), size=200)))
    block = Block(mixer=mha(2), ff=swiglu(16))
    base = Run(
        model=Decoder(vocab=256, width=16, layers=1, block=block),
        data=Data(corpus=Text(path=str(folder)), length=32, batch=4, heldout=0.2),
        train=Training(steps=4),
        record=Recording(heldout_rows=20),
    )
    arms = {"dear": {}, "cheap": {"model.block.ff": None}}
    return Ablation(base=base, arms=arms, budget="flops", seeds=2, ngrams=(NGram(order=1), NGram(order=3)))


def done(monkeypatch: pytest.MonkeyPatch, *arms: str) -> None:
    monkeypatch.setattr(Entry, "status", lambda self: "done" if self.planned.arm in arms else "new")


def test_they_read_what_the_run_that_reads_most_does(ablation, tmp_path, monkeypatch) -> None:
    entries = manifest(ablation, tmp_path)
    steps = {entry.planned.arm: entry.planned.run.train.steps for entry in entries}
    assert steps["cheap"] > steps["dear"] == 4
    done(monkeypatch, "dear", "cheap")
    table = ngram_table(ablation, entries, tmp_path / "ngrams.jsonl")
    assert table is not None and list(zip(table["order"], table["seed"], strict=True)) == [
        (1, 0),
        (3, 0),
        (1, 1),
        (3, 1),
    ]
    for row, seed, order in ((1, 0, 3), (2, 1, 1)):
        data = next(entry.planned.run.data for entry in entries if entry.planned.seed == seed)
        dataset = data.load()
        read = of_batches([dataset.batch(n) for n in range(steps["cheap"])])
        asked = of_batches(list(dataset.heldout_batches(20)))
        bits = NGram(order=order).fit(read, dataset.vocab).bits_per_byte(asked, dataset.tokenizer.token_bytes)
        assert table["bits_per_byte"][row] == pytest.approx(bits, rel=1e-12)
        assert table["tokens"][row] == sum(int(dataset.batch(n)["weights"].sum()) for n in range(steps["cheap"]))
    assert len(set(table["bits_per_byte"])) == 4

    done(monkeypatch, "dear")
    fewer = ngram_table(ablation, entries, tmp_path / "ngrams.jsonl")
    assert fewer is not None and set(fewer["tokens"]) == {4 * 4 * 32}


def test_each_is_fitted_once(ablation, tmp_path: Path, monkeypatch) -> None:
    entries, path = manifest(ablation, tmp_path), tmp_path / "ngrams.jsonl"
    done(monkeypatch, "dear")
    first = ngram_table(ablation, entries, path)
    monkeypatch.setattr(counted, "counted", lambda *_: pytest.fail("fitted again"))
    again = ngram_table(ablation, entries, path)
    assert first is not None and again is not None and first.equals(again)


def test_nothing_is_said_before_there_are_runs(ablation, tmp_path, monkeypatch) -> None:
    done(monkeypatch)
    assert ngram_table(ablation, manifest(ablation, tmp_path), tmp_path / "ngrams.jsonl") is None
