"""Tokenizers made elsewhere: a `tokenizer.json` of the tokenizers library, or a SentencePiece model."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lm.config import config
from lm.data.errors import DataError
from lm.data.tokenizers import BPECodec, ByteCodec, Codec, Tokenizer, byte_letters, library
from lm.files import reason

SPACE = "\u2581"  # what SentencePiece writes for a space
MODELS = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "source.spm")
END = "<|endoftext|>"


@config
class TokenizerFile(Tokenizer):
    """A tokenizer read from a file; `tokenizer_file(path)` makes one.

    digest: of what the file says, so that another file under the same name is an error and no silent change. bos, eos:
    ids of the tokens that begin and end documents. Byte-level tokenizers lose nothing; SentencePiece normalises text
    and puts a space before it, WordPiece drops case and spaces, and bits per byte are then of what they keep.
    """

    path: str
    digest: str
    vocab: int  # type: ignore[assignment]
    bos: int
    eos: int

    def train(self, documents: Iterable[str]) -> Codec:
        del documents
        try:
            content = Path(self.path).read_bytes()
        except OSError as error:
            raise DataError(f"can't read the tokenizer {self.path}: {reason(error)}") from error
        codec = self.loads(_text(Path(self.path), content))
        if (_digest(content), codec.vocab) != (self.digest, self.vocab):
            raise DataError(f"{self.path} isn't the tokenizer it was: its digest is {_digest(content)}")
        return codec

    def loads(self, text: str) -> Codec:
        return _codec(text, self.bos, self.eos)


def tokenizer_file(path: str | Path) -> TokenizerFile:
    """The tokenizer in a file, or in the folder of a checkpoint. Raises DataError where there is none."""
    path = Path(path)
    file = path if path.is_file() else _find(path)
    content = file.read_bytes()
    said = _said(file.parent)
    text = _text(file, content)
    codec = _codec(text, 0, 0)
    ids = {piece: index for index, piece in enumerate(codec.names)}
    named = {field: ids.get(token) for field, token in _special(said).items()}
    eos = _first(named.get("eos_token"), named.get("sep_token"), codec.marks.get("eos"))
    bos = _first(named.get("bos_token"), named.get("cls_token"), codec.marks.get("bos"))
    if eos is None and bos is None:
        raise DataError(f"{file}: neither it nor tokenizer_config.json names a token that ends documents (eos_token)")
    begin, end = _first(bos, eos), _first(eos, bos)
    return TokenizerFile(path=str(file), digest=_digest(content), vocab=codec.vocab, bos=begin, eos=end)  # type: ignore[arg-type]


def as_tokenizer_json(codec: Codec) -> str:
    """A codec of ours as a `tokenizer.json`, its end of text as the special token `<|endoftext|>`."""
    if isinstance(codec, FileCodec):
        return codec.dumps()
    lib = library()
    if isinstance(codec, BPECodec):
        text = codec.dumps()
    elif isinstance(codec, ByteCodec):
        letters = byte_letters()
        plain = lib.Tokenizer(lib.models.BPE(vocab={letters[i]: i for i in range(255)}, merges=[]))
        plain.pre_tokenizer = lib.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        text = plain.to_str()
    else:
        raise DataError(f"there is no tokenizer.json for a {type(codec).__name__}")
    said = json.loads(text)
    said["model"]["vocab"][END] = codec.eot  # the library would give it the first id that is free
    model = lib.Tokenizer.from_str(json.dumps(said))
    model.decoder = lib.decoders.ByteLevel()
    model.add_special_tokens([END])
    return model.to_str()


class FileCodec(Codec):
    """What both kinds have in common. names: of the tokens; marks: ids of bos and eos that the file itself names."""

    names: list[str]
    marks: Mapping[str, int]

    def __init__(self, pieces: Sequence[bytes], bos: int, eos: int) -> None:
        super().__init__(pieces, eot=eos)
        self.bos = bos


class LibraryCodec(FileCodec):
    """Of the tokenizers library."""

    marks: Mapping[str, int] = {}

    def __init__(self, text: str, bos: int, eos: int) -> None:
        self._model = library().Tokenizer.from_str(text)
        self._model.no_padding()
        self._model.no_truncation()
        self._text, said = text, json.loads(text)
        vocab = self._model.get_vocab(with_added_tokens=True)
        self.names = [""] * (max(vocab.values()) + 1)
        for name, index in vocab.items():
            self.names[index] = name
        special = {added["id"] for added in said.get("added_tokens", ()) if added.get("special")}
        piece = _piece_reader(said)
        super().__init__([b"" if i in special else piece(name) for i, name in enumerate(self.names)], bos, eos)

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array(e.ids, np.int64) for e in self._model.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        return self._model.decode([int(i) for i in ids], skip_special_tokens=True)

    def dumps(self) -> str:
        return self._text


class SentencePieceCodec(FileCodec):
    def __init__(self, content: bytes, bos: int, eos: int) -> None:
        try:
            import sentencepiece  # type: ignore[import-not-found]
        except ImportError:
            raise DataError("a SentencePiece model needs the package: pip install sentencepiece") from None
        self._content = content
        self._model = model = sentencepiece.SentencePieceProcessor(model_proto=content)
        ids = range(model.vocab_size())
        self.names = [model.id_to_piece(i) for i in ids]
        self.marks = {name: i for name, i in (("bos", model.bos_id()), ("eos", model.eos_id())) if i >= 0}
        empty = [model.is_control(i) or model.is_unknown(i) or model.is_unused(i) for i in ids]
        super().__init__([b"" if e else _sentence_piece(n) for n, e in zip(self.names, empty, strict=True)], bos, eos)

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array(ids, np.int64) for ids in self._model.encode(list(texts))]

    def decode(self, ids: Iterable[int]) -> str:
        return self._model.decode([int(i) for i in ids])

    def dumps(self) -> str:
        return _BINARY + base64.b64encode(self._content).decode()


_BINARY = "sentencepiece "


def _codec(text: str, bos: int, eos: int) -> FileCodec:
    if text.startswith(_BINARY):
        return SentencePieceCodec(base64.b64decode(text[len(_BINARY) :]), bos, eos)
    return LibraryCodec(text, bos, eos)


def _text(file: Path, content: bytes) -> str:
    return content.decode() if file.suffix == ".json" else _BINARY + base64.b64encode(content).decode()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _find(folder: Path) -> Path:
    for name in ("tokenizer.json", *MODELS):
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} has no tokenizer: neither tokenizer.json nor a SentencePiece model")


def _said(folder: Path) -> dict[str, Any]:
    """What lies beside the tokenizer about its special tokens."""
    said: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            said |= json.loads((folder / name).read_text(encoding="utf-8"))
    return said


def _special(said: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens that are named, as their texts."""
    fields = ("bos_token", "eos_token", "cls_token", "sep_token")
    named = {field: said[field] for field in fields if said.get(field)}
    return {field: token["content"] if isinstance(token, dict) else token for field, token in named.items()}


def _first(*ids: int | None) -> int | None:
    return next((i for i in ids if i is not None), None)


def _piece_reader(said: Mapping[str, Any]) -> Any:
    """From a token's name to the bytes that it stands for, by the kind of tokenizer."""
    kinds = json.dumps([said.get("pre_tokenizer"), said.get("decoder")])
    if '"ByteLevel"' in kinds:
        back = {char: byte for byte, char in enumerate(byte_letters())}
        return lambda name: bytes(back[c] for c in name) if all(c in back for c in name) else name.encode()
    if (said.get("model") or {}).get("type") == "WordPiece":
        return lambda name: name.removeprefix("##").encode()
    return _sentence_piece


def _sentence_piece(name: str) -> bytes:
    if len(name) == 6 and name.startswith("<0x"):
        return bytes([int(name[3:5], 16)])
    return name.replace(SPACE, " ").encode()
