"""The cache: used when it is whole, rebuilt when it isn't, whole after any failure, shared by processes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import lm.data
from lm.data import BPE, Bytes, Data, DataError, Text
from lm.data import store as stores


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


def data_of(tmp_path, tokenizer):
    path = tmp_path / "a.txt"
    if not path.exists():
        path.write_text("\n".join(f"document {i} with some words" for i in range(60)))
    return Data(corpus=Text(path=str(path), separator="\n"), tokenizer=tokenizer, length=8, batch=4, heldout=0.2)


def no_reading(self):
    raise AssertionError("the corpus was read again")


@pytest.mark.parametrize("tokenizer", [Bytes(), BPE(vocab=280)])
def test_built_once_and_then_only_mapped(tmp_path, cache, monkeypatch, tokenizer):
    data = data_of(tmp_path, tokenizer)
    first = lm.data.load(data)
    assert os.listdir(cache) == [first.fingerprint]
    monkeypatch.setattr(Text, "documents", no_reading)
    again = lm.data.load(data)
    assert np.array_equal(first.batch(1)["tokens"], again.batch(1)["tokens"])
    assert first.tokenizer.pieces == again.tokenizer.pieces


def damage_cut(folder):
    path = folder / "train.tokens"
    path.write_bytes(path.read_bytes()[:-1])


def damage_missing(folder):
    (folder / "heldout.offsets").unlink()


def damage_meta(folder):
    (folder / "meta.json").write_text("{")


def damage_layout(folder):
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "layout": -1}))


def damage_offsets(folder):
    path = folder / "train.offsets"
    path.write_bytes(b"\0" * len(path.read_bytes()))


def damage_tokenizer(folder):
    (folder / "tokenizer.json").write_text('{"version"')


@pytest.mark.parametrize(
    "damage", [damage_cut, damage_missing, damage_meta, damage_layout, damage_offsets, damage_tokenizer]
)
def test_damage_is_noticed_and_mended(tmp_path, cache, damage):
    data = data_of(tmp_path, BPE(vocab=280))
    whole = lm.data.load(data)
    before = whole.batch(2)["tokens"].copy()
    damage(cache / whole.fingerprint)
    assert np.array_equal(lm.data.load(data).batch(2)["tokens"], before)
    assert os.listdir(cache) == [whole.fingerprint]
    stores._open(cache / whole.fingerprint, data.tokenizer)


def test_a_build_that_fails_leaves_nothing(tmp_path, cache, monkeypatch):
    data = data_of(tmp_path, Bytes())

    def breaks(self):
        yield "first"
        raise DataError("the second is bad")

    with monkeypatch.context() as patch, pytest.raises(DataError, match="the second is bad"):
        patch.setattr(Text, "documents", breaks)
        lm.data.load(data)
    assert os.listdir(cache) == []

    def disk_full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DataError, match=r"can't be written: No space left.*LM_CACHE"):
        patch.setattr(stores.os, "fsync", disk_full)
        lm.data.load(data)
    assert os.listdir(cache) == []
    assert lm.data.load(data).train_tokens > 0


def test_a_cache_that_can_not_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LM_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"the data cache .*file/data can't be written: Not a directory"):
        lm.data.load(data_of(tmp_path, Bytes()))


def test_the_slower_of_two_builders_uses_the_others(tmp_path, cache, monkeypatch):
    data = data_of(tmp_path, Bytes())
    build, inner = stores._build, []

    def overtaken(*args):
        build(*args)
        monkeypatch.setattr(stores, "_build", build)
        inner.append(lm.data.load(data))

    monkeypatch.setattr(stores, "_build", overtaken)
    outer = lm.data.load(data)
    assert np.array_equal(outer.batch(0)["tokens"], inner[0].batch(0)["tokens"])
    assert os.listdir(cache) == [outer.fingerprint]


def test_processes_that_build_at_once_agree(tmp_path, cache):
    data = data_of(tmp_path, BPE(vocab=300))
    code = f"import lm.data, lm.config; d = lm.data.load(lm.config.loads({lm.config.dumps(data)!r}));" + (
        "print(d.fingerprint, d.batch(7)['tokens'].sum(), d.tokenizer.encode('some words').tolist())"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate()[0] for process in running}
    assert len(said) == 1 and lm.data.fingerprint(data) in said.pop()
    assert os.listdir(cache) == [lm.data.fingerprint(data)]
