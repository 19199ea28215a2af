"""Batches by number: the same whoever asks, wherever they start, and however many share the work."""

import numpy as np
import pytest

import lm.data
import lm.data.split
from lm.config import ConfigError, content_hash
from lm.data import BPE, KJV, Bytes, Data, DataError, Stdlib, Text
from lm.data.dataset import DIRECT

SEPARATOR = "\n###\n"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path, documents):
    path.write_text(SEPARATOR.join(documents))
    return Text(path=str(path), separator=SEPARATOR)


def words(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        " ".join(rng.choice(["sun", "moon", "é", "star"], n)) + f" {i}" for i, n in enumerate(rng.integers(1, 9, count))
    ]


@pytest.fixture
def data(tmp_path):
    return Data(corpus=write(tmp_path / "a.txt", words(40)), length=16, batch=12, heldout=0.2, seed=5)


def same(a, b):
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in a)


def test_an_epoch_of_batches_holds_the_training_documents_and_nothing_else(data):
    dataset = lm.data.load(data)
    seen, n = [], 0
    while sum(len(b["tokens"]) for b in seen) < dataset.epoch_rows:
        seen.append(dataset.batch(n))
        n += 1
    rows = {k: np.concatenate([b[k] for b in seen])[: dataset.epoch_rows] for k in seen[0]}
    real = rows["weights"] > 0
    assert real.sum() == dataset.train_tokens
    text = bytes(rows["tokens"][real].astype(np.uint8)).split(b"\xff")[1:]
    held = {d for d in words(40) if lm.data.split.is_heldout(d, 0.2)}
    assert 0 < len(held) < 40
    assert sorted(t.decode() for t in text) == sorted(set(words(40)) - held)


def test_shapes_and_types(data):
    batch = lm.data.load(data).batch(0)
    kinds = {k: (v.shape, v.dtype.name) for k, v in batch.items()}
    assert kinds.pop("weights") == ((12, 16), "float32")
    assert kinds == dict.fromkeys(("tokens", "targets", "positions", "segments"), ((12, 16), "int32"))


@pytest.mark.parametrize("hosts", [2, 3, 4, 12])
def test_hosts_together_read_the_global_batch(data, hosts):
    dataset = lm.data.load(data)
    for n in (0, 3, dataset.epoch_rows // 12):  # the last one crosses into the next epoch
        whole = dataset.batch(n)
        parts = [dataset.batch(n, host, hosts) for host in range(hosts)]
        assert same(whole, {k: np.concatenate([p[k] for p in parts]) for k in whole})


@pytest.mark.parametrize(("prefetch", "workers"), [(0, 0), (2, 1), (7, 4)])
def test_grain_changes_nothing_and_start_skips(data, prefetch, workers):
    dataset = lm.data.load(data)
    batches = dataset.batches(start=3, host=1, hosts=2, prefetch=prefetch, workers=workers)
    for n in range(3, 3 + DIRECT + 9):
        assert same(next(batches), dataset.batch(n, 1, 2))


def test_seeds_and_epochs_differ_and_repeat(data):
    dataset = lm.data.load(data)
    assert same(dataset.batch(4), lm.data.load(data).batch(4))
    other = lm.data.load(Data(corpus=data.corpus, length=16, batch=12, heldout=0.2, seed=6))
    assert not same(dataset.batch(0), other.batch(0))
    whole = Data(corpus=data.corpus, length=16, batch=dataset.epoch_rows, heldout=0.2)
    epochs = lm.data.load(whole)
    assert not same(epochs.batch(0), epochs.batch(1))
    assert epochs.batch(0)["weights"].sum() == epochs.batch(1)["weights"].sum() == dataset.train_tokens


def test_heldout_batches_cover_each_token_once(data):
    dataset = lm.data.load(data)
    batches = list(dataset.heldout_batches())
    assert all(b["tokens"].shape == (12, 16) for b in batches)
    real = np.concatenate([b["weights"].ravel() for b in batches]) > 0
    tokens = np.concatenate([b["tokens"].ravel() for b in batches])[real]
    expected = [d for d in words(40) if lm.data.split.is_heldout(d, 0.2)]
    assert dataset.tokenizer.decode(tokens) == "".join(expected)
    assert len(tokens) == dataset.heldout_tokens
    assert sum(dataset.bytes_of(b) for b in batches) == sum(len(d.encode()) for d in expected)
    assert not np.concatenate([b["segments"].ravel() for b in batches])[~real].any()


def test_heldout_rows_are_spread_and_shared(data):
    dataset = lm.data.load(Data(corpus=data.corpus, length=4, batch=4, heldout=0.2))
    everything = np.concatenate([b["tokens"] for b in dataset.heldout_batches()])[: dataset.heldout_rows]
    some = list(dataset.heldout_batches(rows=6))
    assert len(some) == 2 and dataset.heldout_rows > 12
    chosen = [i * dataset.heldout_rows // 6 for i in range(6)]
    assert np.concatenate([b["tokens"] for b in some])[:6].tolist() == everything[chosen].tolist()
    for whole, *parts in zip(some, *(dataset.heldout_batches(6, h, 2) for h in range(2)), strict=True):
        assert same(whole, {k: np.concatenate([p[k] for p in parts]) for k in whole})


def test_a_document_keeps_its_side_in_any_company(tmp_path):
    some, more = words(30), words(30) + words(50, seed=1)

    def documents_in(batches):
        tokens = np.concatenate([b["tokens"][b["weights"] > 0] for b in batches])
        return set(bytes(tokens.astype(np.uint8)).split(b"\xff")) - {b""}

    def sides(name, documents):
        dataset = lm.data.load(Data(corpus=write(tmp_path / name, documents), length=8, batch=1, heldout=0.3))
        train = documents_in(dataset.batch(n) for n in range(dataset.epoch_rows))
        return train, documents_in(dataset.heldout_batches())

    train, held = sides("a", some)
    more_train, more_held = sides("b", [*more, *some])
    assert train and held and not train & held and not more_train & more_held
    assert train < more_train and held < more_held


def test_heldout_share_is_about_what_was_asked():
    held = sum(lm.data.split.is_heldout(f"document {i}", 0.1) for i in range(5000))
    assert abs(held - 500) < 5 * (5000 * 0.1 * 0.9) ** 0.5
    assert not any(lm.data.split.is_heldout(str(i), 0.0) for i in range(100))


def test_nothing_held_out_when_nothing_is_asked(data):
    dataset = lm.data.load(Data(corpus=data.corpus, length=16, batch=2, heldout=0))
    assert dataset.heldout_tokens == 0 and list(dataset.heldout_batches()) == []


def test_fingerprint_is_of_content(tmp_path, data):
    assert lm.data.load(data).fingerprint == lm.data.fingerprint(data)
    moved = Data(corpus=write(tmp_path / "elsewhere.txt", words(40)), length=8, batch=1, heldout=0.2)
    assert lm.data.fingerprint(moved) == lm.data.fingerprint(data)
    different = [
        Data(corpus=write(tmp_path / "b.txt", words(41)), heldout=0.2),
        Data(corpus=data.corpus, heldout=0.21),
        Data(corpus=data.corpus, heldout=0.2, tokenizer=BPE(vocab=300)),
        Data(corpus=data.corpus, heldout=0.2, tokenizer=BPE(vocab=301)),
        Data(corpus=Text(path=data.corpus.path), heldout=0.2),
        Data(),
    ]
    prints = [lm.data.fingerprint(d) for d in [data, *different]]
    assert len(set(prints)) == len(prints)


def test_fingerprint_follows_a_file_that_changes(data):
    before = lm.data.fingerprint(data)
    with open(data.corpus.path, "a") as file:
        file.write("!")
    assert lm.data.fingerprint(data) != before


def test_default_corpora(cache):
    chapters = list(KJV().documents())
    assert len(chapters) == len(set(chapters)) == 1189
    assert chapters[0].startswith("Genesis 1\n\nIn the beginning God created the heaven and the earth.\nAnd the earth")
    sources = list(Stdlib().documents())
    assert sum(map(len, sources)) > 5_000_000 and any("class OrderedDict" in s for s in sources)
    assert KJV().fingerprint() != Stdlib().fingerprint()
    dataset = lm.data.load(Data())
    assert dataset.train_tokens + dataset.heldout_tokens == sum(len(c.encode()) + 1 for c in chapters)
    assert 0.02 < dataset.heldout_tokens / dataset.train_tokens < 0.09


def test_batch_larger_than_an_epoch(data):
    rows = lm.data.load(data).epoch_rows
    with pytest.raises(DataError, match=rf"batch={rows + 1} rows of length=16 .*{rows} rows; lower batch"):
        lm.data.load(Data(corpus=data.corpus, length=16, batch=rows + 1, heldout=0.2))


def test_wrong_hosts_and_numbers(data):
    dataset = lm.data.load(data)
    for read in (dataset.batch, dataset.batches):
        with pytest.raises(DataError, match="batch=12 can't be shared equally by 5 hosts"):
            read(0, 0, 5)
        with pytest.raises(DataError, match="no host 3 of 3: hosts are numbered 0 to 2"):
            read(0, 3, 3)
        with pytest.raises(DataError, match="no batch -1"):
            read(-1)


@pytest.mark.parametrize("field", [{"heldout": 1.0}, {"heldout": -0.1}, {"length": 0}, {"batch": 0}, {"seed": -1}])
def test_wrong_configs(field):
    with pytest.raises(ConfigError, match=f"Data.{next(iter(field))}="):
        Data(**field)


def test_data_is_a_value():
    assert content_hash(Data()) == content_hash(Data(tokenizer=Bytes(), corpus=KJV()))
    assert lm.config.loads(lm.config.dumps(Data(tokenizer=BPE(vocab=999)))) == Data(tokenizer=BPE(vocab=999))
