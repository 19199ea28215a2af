"""Text to token ids and back: bytes, and byte-level BPE trained in place.

A `Tokenizer` is the config; a `Codec` is what it builds. Every codec is lossless: `decode(encode(s)) == s`, and
the bytes its tokens stand for add up to the bytes of the text, so that bits per byte is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from lm.config import ConfigError, config
from lm.data.errors import DataError


class Codec:
    """A built tokenizer. `pieces` are the bytes each token id stands for; `eot` starts and ends documents.

    `bos` begins a prompt: `eot` too, but in tokenizers made elsewhere.
    """

    def __init__(self, pieces: Sequence[bytes], eot: int) -> None:
        self.pieces = tuple(pieces)
        self.vocab = len(self.pieces)
        self.eot = self.bos = eot
        self.token_bytes = np.array([len(piece) for piece in self.pieces], np.int32)

    def encode(self, text: str) -> np.ndarray:
        """Token ids of a text, without `eot`: int array [tokens]."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        raise NotImplementedError

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids. `eot` gives nothing; bytes that are no UTF-8 (a model may emit them) give U+FFFD."""
        return b"".join(self.pieces[int(i)] for i in ids).decode("utf-8", errors="replace")

    def dumps(self) -> str:
        """What `Tokenizer.loads` needs to make this codec again, without the corpus."""
        return ""


@config
class Tokenizer:
    """Base of the tokenizer configs. `vocab` is known before anything is trained."""

    vocab: ClassVar[Any]

    def train(self, documents: Iterable[str]) -> Codec:
        """The codec for these documents; equal documents give an equal codec."""
        raise NotImplementedError

    def loads(self, text: str) -> Codec:
        """The codec that `Codec.dumps` wrote."""
        raise NotImplementedError


class ByteCodec(Codec):
    """A token is a byte of UTF-8. 0xFF never occurs in UTF-8, so it is free to be `eot`."""

    def __init__(self) -> None:
        super().__init__([bytes([i]) for i in range(255)] + [b""], eot=0xFF)

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(text.encode("utf-8"), np.uint8) for text in texts]


@config
class Bytes(Tokenizer):
    """A token is a byte: 256 of them, nothing to train."""

    vocab: ClassVar[int] = 256

    def train(self, documents: Iterable[str]) -> Codec:
        return ByteCodec()

    def loads(self, text: str) -> Codec:
        return ByteCodec()


class BPECodec(Codec):
    """Byte-level BPE over the `tokenizers` library. The last id is `eot`; text can't produce it."""

    def __init__(self, model: Any, vocab: int) -> None:
        back = {char: byte for byte, char in enumerate(byte_letters())}
        pieces = [b""] * vocab
        for token, index in model.get_vocab().items():
            pieces[index] = bytes(back[char] for char in token)
        super().__init__(pieces, eot=vocab - 1)
        self._model = model

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array(e.ids, np.int64) for e in self._model.encode_batch_fast(list(texts), add_special_tokens=False)]

    def dumps(self) -> str:
        return self._model.to_str()


@config
class BPE(Tokenizer):
    """Byte-level byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909, over bytes as in GPT-2).

    Trained on the training split. vocab: ids in all: 256 bytes, the merges, and `eot` as the last. A corpus too
    small for so many merges leaves ids unused.
    """

    vocab: int = 4096  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if not 257 <= self.vocab <= 1 << 20:
            raise ConfigError(f"BPE.vocab={self.vocab} must be 257 (256 bytes and end of text) to {1 << 20:,}")

    def train(self, documents: Iterable[str]) -> Codec:
        lib = library()
        model = lib.Tokenizer(lib.models.BPE())
        model.pre_tokenizer = lib.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        trainer = lib.trainers.BpeTrainer(
            vocab_size=self.vocab - 1,
            initial_alphabet=sorted(byte_letters()),
            min_frequency=2,
            show_progress=False,
        )
        model.train_from_iterator(documents, trainer)
        return BPECodec(model, self.vocab)

    def loads(self, text: str) -> Codec:
        return BPECodec(library().Tokenizer.from_str(text), self.vocab)


def byte_letters() -> list[str]:
    """The letter that stands for each byte in byte-level BPE: printable bytes for themselves, others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def library() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError:
        raise DataError("BPE needs the package tokenizers: pip install tokenizers; or use Bytes()") from None
    return tokenizers
