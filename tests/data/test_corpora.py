"""Reading files of every kind, and what bad ones say."""

import gzip
import json
import shutil
import subprocess
import sys
import types

import pytest

import lm.data
from lm.config import ConfigError
from lm.data import Data, DataError, HuggingFace, Jsonl, Parquet, Text


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LM_CACHE", str(tmp_path / "cache"))


DOCUMENTS = ["one", "two\nlines", "drei é", "four"]


def compress(path, raw):
    if path.suffix == ".gz":
        raw = gzip.compress(raw)
    elif path.suffix == ".zst":
        raw = pytest.importorskip("zstandard").compress(raw)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)


def jsonl(documents, field="text"):
    return "".join(json.dumps({field: d, "id": i}) + "\n" for i, d in enumerate(documents)).encode()


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_text_and_jsonl_compressed_or_not(tmp_path, suffix):
    compress(tmp_path / f"a.txt{suffix}", "----".join(DOCUMENTS).encode())
    compress(tmp_path / f"a.jsonl{suffix}", b"\n" + jsonl(DOCUMENTS) + b"  \n")
    assert list(Text(path=str(tmp_path / f"a.txt{suffix}"), separator="----").documents()) == DOCUMENTS
    assert list(Jsonl(path=str(tmp_path / f"a.jsonl{suffix}")).documents()) == DOCUMENTS


def test_separators_and_lines_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(lm.data.files, "CHUNK", 3)
    for suffix in ("", ".gz", ".zst"):
        compress(tmp_path / f"a.txt{suffix}", "----".join(DOCUMENTS).encode())
        assert list(Text(path=str(tmp_path / f"a.txt{suffix}"), separator="----").documents()) == DOCUMENTS


def test_files_folders_and_globs(tmp_path):
    for name, text in [("b.txt", "B"), ("a/z.md", "A"), ("a/x.rst", "X"), (".hidden/h.txt", "H"), ("c.txt.gz", "C")]:
        compress(tmp_path / name, text.encode())
    assert list(Text(path=str(tmp_path)).documents()) == ["A", "B", "C"]
    assert list(Text(path=f"{tmp_path}/**/*.rst").documents()) == ["X"]
    assert list(Text(path=f"{tmp_path}/b.txt").documents()) == ["B"]
    with pytest.raises(DataError, match=r"no file matches .*\*\.nothing"):
        list(Text(path=f"{tmp_path}/*.nothing").documents())
    with pytest.raises(DataError, match=r"there is no file or folder .*missing"):
        Text(path=f"{tmp_path}/missing").fingerprint()
    with pytest.raises(DataError, match=r"no file in the folder .* ends in \.jsonl, .*give a glob"):
        list(Jsonl(path=str(tmp_path)).documents())


def test_fingerprints_see_content_order_and_fields_but_not_names(tmp_path):
    for folder, names in (("x", "ab"), ("y", "cd")):
        for name, text in zip(names, ("1", "2"), strict=True):
            compress(tmp_path / folder / f"{name}.txt", text.encode())
    compress(tmp_path / "z" / "a.txt", b"12")
    compress(tmp_path / "z" / "b.txt", b"")
    compress(tmp_path / "packed" / "a.txt.gz", b"1")
    compress(tmp_path / "packed" / "b.txt.gz", b"2")
    x, y, z, packed = (Text(path=str(tmp_path / f)).fingerprint() for f in ("x", "y", "z", "packed"))
    assert x == y == packed != z
    compress(tmp_path / "r.jsonl", jsonl(["1"]))
    assert (
        Jsonl(path=str(tmp_path / "r.jsonl")).fingerprint()
        != Jsonl(path=str(tmp_path / "r.jsonl"), field="id").fingerprint()
    )


@pytest.mark.parametrize("separator", [None, "\n"])
def test_not_utf8_names_file_and_offset(tmp_path, separator):
    compress(tmp_path / "a.txt", b"good\nbad \xe9t\xe9\n")
    with pytest.raises(DataError, match=r"a\.txt is not UTF-8: byte 0xe9 at offset 9; convert it"):
        list(Text(path=str(tmp_path / "a.txt"), separator=separator).documents())


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_cut_short(tmp_path, suffix):
    path = tmp_path / f"a.txt{suffix}"
    compress(path, b"word " * 1000)
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(DataError, match=r"a\.txt\.\w+ is cut short"):
        list(Text(path=str(path)).documents())
    path.write_bytes(b"this was never compressed")
    with pytest.raises(DataError, match="damaged"):
        list(Text(path=str(path)).documents())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "a"', r"a\.jsonl:3 is not JSON: .*mend or remove the line"),
        (b'{"txt": "a", "id": 1}', r"a\.jsonl:3 has no field 'text'; did you mean 'txt'\?$"),
        (b'{"body": "a"}', r"a\.jsonl:3 has no field 'text'; it has: body"),
        (b'{"text": 7}', r"a\.jsonl:3: field 'text' holds int, not text"),
        (b'["a"]', r"a\.jsonl:3 is a JSON list, not an object with a field 'text'"),
        (b'{"text": "\xff"}', r"a\.jsonl is not UTF-8: byte 0xff at offset 60"),
    ],
)
def test_bad_lines(tmp_path, line, message):
    compress(tmp_path / "a.jsonl", jsonl(["one", "two"]) + line + b"\n" + jsonl(["three"]))
    with pytest.raises(DataError, match=message):
        list(Jsonl(path=str(tmp_path / "a.jsonl")).documents())


def test_half_a_surrogate_pair(tmp_path):
    compress(tmp_path / "a.jsonl", b'{"text": "x\\ud800y"}\n')
    with pytest.raises(DataError, match=r"half of a surrogate pair \(U\+D800\) at character 1"):
        lm.data.load(Data(corpus=Jsonl(path=str(tmp_path / "a.jsonl"))))


@pytest.mark.parametrize("raw", [b"", b"\n\n"])
def test_empty_corpus(tmp_path, raw):
    compress(tmp_path / "a.txt", raw)
    with pytest.raises(DataError, match=r"Text\(path='.*a\.txt', .* is empty"):
        lm.data.load(Data(corpus=Text(path=str(tmp_path / "a.txt"), separator="\n")))


def test_one_document_can_not_be_split(tmp_path):
    compress(tmp_path / "a.txt", b"some text, and all of it in one document")
    with pytest.raises(
        DataError, match=r"has 1 document and none is (held out|left to train on).*with Text.separator$"
    ):
        lm.data.load(Data(corpus=Text(path=str(tmp_path / "a.txt")), length=4, batch=1))
    dataset = lm.data.load(Data(corpus=Text(path=str(tmp_path / "a.txt")), length=4, batch=1, heldout=0))
    assert dataset.epoch_rows == 11


def test_wrong_configs():
    with pytest.raises(ConfigError, match=r"Text\.separator is empty"):
        Text(path="a", separator="")
    with pytest.raises(ConfigError, match="limit=0 must be at least 1"):
        HuggingFace(name="a", limit=0)


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": DOCUMENTS, "id": range(4)}), tmp_path / "a.parquet")
    assert list(Parquet(path=str(tmp_path)).documents()) == DOCUMENTS
    with pytest.raises(DataError, match=r"a\.parquet has no column 'texts'; did you mean 'text'\?"):
        list(Parquet(path=str(tmp_path), field="texts").documents())
    pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet row 1: field 'text' holds NoneType, not text"):
        list(Parquet(path=str(tmp_path / "b.parquet")).documents())
    (tmp_path / "c.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"c\.parquet can't be read as Parquet"):
        list(Parquet(path=str(tmp_path / "c.parquet")).documents())


@pytest.mark.parametrize("saved", [False, True])
def test_hugging_face_folder_without_network(tmp_path, monkeypatch, saved):
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_UPDATE_DOWNLOAD_COUNTS"):
        monkeypatch.setenv(name, "0" if "COUNTS" in name else "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "set"
    if saved:
        rows = datasets.Dataset.from_list([{"text": d} for d in DOCUMENTS])
        datasets.DatasetDict({"train": rows}).save_to_disk(str(folder))
    else:
        compress(folder / "train.jsonl", jsonl(DOCUMENTS))
    corpus = HuggingFace(name=str(folder))
    assert list(corpus.documents()) == DOCUMENTS
    assert list(HuggingFace(name=str(folder), limit=2).documents()) == DOCUMENTS[:2]
    assert corpus.fingerprint() != HuggingFace(name=str(folder), limit=2).fingerprint()
    moved = str(shutil.copytree(folder, tmp_path / "moved"))
    assert HuggingFace(name=moved).fingerprint() == corpus.fingerprint()
    with pytest.raises(DataError, match="row 0 has no field 'txt'; did you mean 'text'"):
        list(HuggingFace(name=moved, field="txt").documents())
    with pytest.raises(DataError, match=r"split nope\) can't be read"):
        list(HuggingFace(name=moved, split="nope").documents())


def test_the_commit_that_is_fingerprinted_is_the_one_that_is_read(monkeypatch):
    pushed, read = iter(["aaa", "bbb"]), []
    info = types.SimpleNamespace(dataset_info=lambda name, revision: types.SimpleNamespace(sha=next(pushed)))
    rows = [{"text": text} for text in DOCUMENTS]
    load = lambda *_, revision, **__: read.append(revision) or rows  # noqa: E731
    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(HfApi=lambda: info))
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load))
    corpus = HuggingFace(name="someone/pushes-now")
    first = corpus.fingerprint()
    assert list(corpus.documents()) == DOCUMENTS and read == ["aaa"] and corpus.fingerprint() == first


def test_what_is_optional_is_imported_late():
    optional = ["jax", "grain", "tokenizers", "datasets", "pyarrow", "zstandard", "pandas"]
    code = f"import sys, lm.data; print([m for m in {optional} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("module", "corpus", "extra"),
    [
        ("pyarrow", Parquet(path="a.parquet"), r"lm\[files\]"),
        ("zstandard", Text(path="a.txt.zst"), r"lm\[files\]"),
        ("datasets", HuggingFace(name="a"), r"lm\[hf\]"),
    ],
)
def test_a_missing_extra_is_named(tmp_path, monkeypatch, module, corpus, extra):
    monkeypatch.chdir(tmp_path)
    for name in ("a.parquet", "a.txt.zst"):
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=rf"needs: pip install '{extra}'"):
        list(corpus.documents())
