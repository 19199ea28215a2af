"""Tokenizers lose nothing, count bytes exactly and come out the same every time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.config import ConfigError
from lm.data import BPE, KJV, Bytes, Codec

TRAINING = list(KJV().documents())[:60]
CODECS = [Bytes().train([]), BPE(vocab=600).train(TRAINING)]
texts = st.text(st.characters(codec="utf-8"), max_size=60) | st.sampled_from(
    ["<|endoftext|>", "  \r\n\t", "e\u0301", "\ufeff", "\0", "👩‍👩‍👧", "don't 'LL\u2003x", *TRAINING[:1]]
)


@pytest.mark.parametrize("codec", CODECS, ids=["bytes", "bpe"])
@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_roundtrip_and_exact_bytes(codec: Codec, text: str):
    ids = codec.encode(text)
    assert codec.decode(ids) == text
    assert codec.token_bytes[ids].sum() == len(text.encode())
    assert codec.eot not in ids and codec.decode([codec.eot, *ids, codec.eot]) == text


@pytest.mark.parametrize(
    ("config", "codec"), list(zip([Bytes(), BPE(vocab=600)], CODECS, strict=True)), ids=["bytes", "bpe"]
)
def test_vocabulary(config, codec):
    assert codec.vocab == config.vocab == len(codec.token_bytes) and codec.eot == codec.vocab - 1
    assert codec.token_bytes[codec.eot] == 0 and codec.token_bytes.dtype == np.int32
    again = config.loads(codec.dumps())
    assert again.pieces == codec.pieces and again.encode(TRAINING[3]).tolist() == codec.encode(TRAINING[3]).tolist()


def test_bytes_are_utf8():
    assert CODECS[0].encode("aé").tolist() == [97, 0xC3, 0xA9] and CODECS[0].vocab == 256 and CODECS[0].eot == 0xFF


def test_what_is_no_utf8_decodes_to_a_mark():
    assert CODECS[0].decode([97, 0xC3, 98]) == "a\ufffdb"


def test_bpe_is_deterministic_and_shorter():
    codec = CODECS[1]
    assert BPE(vocab=600).train(TRAINING).dumps() == codec.dumps()
    assert len(codec.encode(TRAINING[0])) < 0.6 * len(TRAINING[0].encode())
    assert [e.tolist() for e in codec.encode_all(TRAINING[:3])] == [codec.encode(t).tolist() for t in TRAINING[:3]]


def test_bpe_of_a_tiny_corpus_keeps_its_vocabulary():
    codec = BPE(vocab=1000).train(["ab ab ab"])
    assert codec.vocab == 1000 and codec.eot == 999 and codec.decode(codec.encode("zé ab")) == "zé ab"


@pytest.mark.parametrize("vocab", [256, 0, 1 << 21])
def test_wrong_vocabulary(vocab):
    with pytest.raises(ConfigError, match=f"BPE.vocab={vocab} must be 257"):
        BPE(vocab=vocab)
