"""Words, and questions to their vectors, with answers that can be read off by eye."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lm.data import DataError
from lm.data.synthetic import Markov
from lm.early import Embeddings, cos_add, cos_mul, load, vocabulary
from lm.early.descent import STEPS, Trained, descend
from lm.early.words import documents, split

# gender, rank, and something of its own
FOUND = Embeddings(
    ("man", "woman", "king", "queen", "stone"),
    np.array([[1, 0, 1], [-1, 0, 1], [2, 3, 1], [-2, 3, 1], [0.1, -4, 0.2]], np.float32),
)


def test_the_nearest() -> None:
    assert [word for word, _ in FOUND.nearest("man", 2)] == ["king", "stone"]
    cosine = (2 + 1) / np.sqrt(2 * 14)
    assert FOUND.nearest("man")[0][1] == pytest.approx(cosine) == FOUND.similarity("king", "man")
    assert len(FOUND.nearest("man", 99)) == 4 and FOUND["king"].tolist() == [2, 3, 1]


@pytest.mark.parametrize("score", [cos_add, cos_mul])
def test_analogies_leave_out_what_was_asked(score: object) -> None:
    assert FOUND.analogy("man", "king", "woman", score=score)[0][0] == "queen"  # type: ignore[arg-type]
    names = [word for word, _ in FOUND.analogy("man", "king", "woman", k=9, score=score)]  # type: ignore[arg-type]
    assert sorted(names) == ["queen", "stone"]
    assert len(FOUND.analogy("man", "man", "woman", k=9, score=score)) == 3  # type: ignore[arg-type]


def test_the_scores() -> None:
    unit = FOUND.vectors / np.linalg.norm(FOUND.vectors, axis=1, keepdims=True)
    man, woman, king, queen, _ = unit
    assert FOUND.analogy("man", "king", "woman")[0][1] == pytest.approx(queen @ (king - man + woman), abs=1e-6)
    a, b, c = ((queen @ x + 1) / 2 for x in (man, king, woman))
    found = FOUND.analogy("man", "king", "woman", score=cos_mul)[0][1]
    assert found == pytest.approx(b * c / (a + 0.001), rel=1e-5)


@pytest.mark.parametrize("name", ["a.npz", "a.txt", "a.vec"])
def test_vectors_are_read_as_they_were_written(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = ("the", "naïve", "don't", "a#b")
    saved = Embeddings(words, (rng.normal(size=(4, 3)) * 10.0 ** rng.integers(-30, 30, (4, 3))).astype(np.float32))
    saved.save(tmp_path / name)
    found = load(tmp_path / name)
    assert found.words == words and found.vectors.dtype == np.float32
    np.testing.assert_array_equal(found.vectors, saved.vectors)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    for name, text, message in (
        ("a.txt", "2 3\nthe 1 2 3\nof 1 2\n", r"a.txt:3 has 2 numbers where the first line says 3"),
        ("b.txt", "2 3\nthe 1 2 3\n", "has 1 words where its first line says 2; it is cut short"),
        ("c.txt", "words\n", "c.txt holds no word vectors"),
        ("d.txt", "1 1\nthe x\n", "d.txt holds no word vectors"),
        ("e.npz", "PK", "e.npz holds no word vectors"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=message):
            load(tmp_path / name)
    np.savez(tmp_path / "f.npz", other=np.zeros(3))
    with pytest.raises(DataError, match=r"f.npz holds no word vectors"):
        load(tmp_path / "f.npz")
    with pytest.raises(DataError, match="can't be read"):
        load(tmp_path / "none.txt")
    with pytest.raises(DataError, match=r"there is one in 'new york'; save as \.npz"):
        Embeddings(("new york",), np.zeros((1, 2))).save(tmp_path / "g.txt")


def test_an_unknown_word_is_named_with_those_near_in_spelling() -> None:
    with pytest.raises(DataError, match="no vector for the word 'quen' among 5; near in spelling: queen"):
        FOUND.nearest("quen")
    with pytest.raises(DataError, match="no vector for the word 'zzz' among 5"):
        FOUND.analogy("man", "zzz", "king")
    with pytest.raises(DataError, match="2 words don't fit vectors of shape"):
        Embeddings(("a", "b"), np.zeros((3, 2)))


def test_words_of_a_text() -> None:
    assert split("Don't: the KING\u2019s 12 naïve-men_1 O'") == ["don't", "the", "king\u2019s", "naïve", "men", "o"]
    text = [["b", "a", "c"], ["a", "b"], ["a"], ["d"]]
    found = vocabulary(text, 2)
    assert found.words == ("a", "b") and found.counts.tolist() == [3, 2]
    encoded = found.encode(text)
    assert encoded.tokens.tolist() == [1, 0, 0, 1, 0] and encoded.document.tolist() == [0, 0, 1, 1, 2]
    assert [len(words) for words in documents(Markov(symbols=3, documents_count=2, length=9))] == [1, 1]


@pytest.mark.parametrize("count", [3, 5 * STEPS + 2])
def test_descent_meets_each_example_once_an_epoch(count: int) -> None:
    """However many there are: what fills up the last scan weighs nothing."""
    values = np.random.default_rng(0).normal(size=count).astype(np.float32)

    def run(rate: float) -> Trained:
        def loss(params: jax.Array, key: jax.Array, x: jax.Array) -> jax.Array:
            return params + x

        rule, start = optax.sgd(1.0), jnp.zeros(())
        return descend(loss, rule, start, lambda _: (values,), epochs=2, batch=4, rate=lambda _: rate, seed=0)

    assert run(0.0).losses == pytest.approx((values.mean(), values.mean()), abs=1e-6)
    assert float(run(0.5).params) == -0.5 * 2 * count
