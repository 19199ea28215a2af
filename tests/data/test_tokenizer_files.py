"""Tokenizers made elsewhere: the library's own ids and texts, the bytes of each token, and ours in its form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from lm.data import BPE, Bytes, Data, DataError, Text, tokenizer_file
from lm.data.tokenizer_files import END, as_tokenizer_json

CORPUS = ["the cat sat on the mat", "the dog sat on the log", "Zoë's cats — ünïcode ☃ and 𝄞 too"] * 3


def write(folder: Path, model: Any, **said: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(model if isinstance(model, str) else model.to_str(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder


def byte_level() -> Any:
    return tokenizers.Tokenizer.from_str(as_tokenizer_json(BPE(vocab=300).train(CORPUS)))


def metaspace() -> Any:
    """SentencePiece's way in the library: a mark for spaces, and bytes for what it doesn't know."""
    model = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=True, unk_token="<unk>"))
    model.normalizer = tokenizers.normalizers.Replace(" ", "\u2581")
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    )
    model.train_from_iterator(CORPUS[:2], trainer)
    model.decoder = tokenizers.decoders.Sequence(
        [tokenizers.decoders.Replace("\u2581", " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()]
    )
    said = json.loads(model.to_str())
    for added in said["added_tokens"]:
        added["special"] = not added["content"].startswith("<0x")
    said["added_tokens"] = [added for added in said["added_tokens"] if added["special"]]
    return json.dumps(said)


@pytest.mark.parametrize("kind", ["byte level", "metaspace"])
def test_ids_and_texts_are_the_library_s(kind: str, tmp_path: Path) -> None:
    ends = {"byte level": {"eos_token": END}, "metaspace": {"bos_token": "<s>", "eos_token": {"content": "</s>"}}}[kind]
    folder = write(tmp_path / "t", byte_level() if kind == "byte level" else metaspace(), **ends)
    spec = tokenizer_file(folder)
    codec, library = spec.train(()), tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in CORPUS[:3]:
        ids = codec.encode(text)
        assert ids.tolist() == library.encode(text, add_special_tokens=False).ids
        assert codec.decode(ids) == text
        assert b"".join(codec.pieces[i] for i in ids) == text.encode()
        assert codec.token_bytes[ids].sum() == len(text.encode())
    assert spec.vocab == codec.vocab == library.get_vocab_size()
    marks = {"byte level": (299, 299), "metaspace": (1, 2)}[kind]
    assert (spec.bos, spec.eos) == (codec.bos, codec.eot) == marks
    assert codec.decode([codec.eot, *codec.encode("the cat")]) == "the cat"
    again = spec.loads(codec.dumps())
    assert again.pieces == codec.pieces and again.encode("the cat").tolist() == codec.encode("the cat").tolist()


@pytest.mark.parametrize("spec", [Bytes(), BPE(vocab=300), BPE(vocab=900)], ids=["bytes", "bpe", "bpe with unused ids"])
def test_ours_in_the_library_s_form(spec: Any, tmp_path: Path) -> None:
    codec = spec.train(CORPUS)
    library = tokenizers.Tokenizer.from_str(as_tokenizer_json(codec))
    for text in [*CORPUS, "", " \n\t", "a\x00b"]:
        assert library.encode(text).ids == codec.encode(text).tolist()
        assert library.decode(codec.encode(text).tolist()) == text
    assert library.token_to_id(END) == codec.eot
    assert library.encode(f"a{END}").ids[-1] == codec.eot  # to the library the name is the token
    back = tokenizer_file(write(tmp_path / "t", library, eos_token=END)).train(())
    assert (back.eot, back.vocab) == (codec.eot, codec.vocab)
    assert back.pieces[: codec.eot] == codec.pieces[: codec.eot]


def test_wordpiece(tmp_path: Path) -> None:
    model = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[CLS]": 0, "[SEP]": 1, "cat": 2, "##s": 3, "[UNK]": 4}))
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    model.decoder = tokenizers.decoders.WordPiece()
    model.add_special_tokens(["[CLS]", "[SEP]", "[UNK]"])
    spec = tokenizer_file(write(tmp_path / "t", model, cls_token="[CLS]", sep_token="[SEP]"))
    codec = spec.train(())
    assert (spec.bos, spec.eos) == (0, 1)
    assert codec.encode("cats").tolist() == [2, 3] and codec.decode([0, 2, 3, 1]) == "cats"
    assert codec.pieces[2:4] == (b"cat", b"s") and codec.pieces[0] == b""


def test_sentencepiece(tmp_path: Path) -> None:
    library = pytest.importorskip("sentencepiece", reason="needs sentencepiece: pip install sentencepiece")
    text = tmp_path / "corpus.txt"
    text.write_text("\n".join(CORPUS))
    library.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "tokenizer"), vocab_size=330, model_type="bpe", byte_fallback=True,
        minloglevel=2, character_coverage=0.98,
    )  # fmt: skip
    spec = tokenizer_file(tmp_path)
    codec, model = spec.train(()), library.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    for line in CORPUS[:3]:
        ids = codec.encode(line)
        assert ids.tolist() == model.encode(line)
        assert codec.decode(ids) == line
        assert b"".join(codec.pieces[i] for i in ids) == b" " + line.encode()  # it puts a space before
    assert (spec.bos, spec.eos) == (model.bos_id(), model.eos_id())
    assert codec.pieces[spec.eos] == b""
    again = spec.loads(codec.dumps())
    assert again.pieces == codec.pieces and again.encode("the cat").tolist() == codec.encode("the cat").tolist()


def test_a_run_reads_it(tmp_path: Path) -> None:
    corpus = tmp_path / "text.txt"
    corpus.write_text("\n\n".join(CORPUS * 20))
    spec = tokenizer_file(write(tmp_path / "t", byte_level(), eos_token=END))
    data = Data(corpus=Text(path=str(corpus), separator="\n\n"), tokenizer=spec, length=16, batch=2, heldout=0.2)
    dataset = data.load()
    batch = dataset.batch(0)
    assert dataset.vocab == 300 and batch["tokens"].max() < 300
    first = batch["tokens"][0][batch["segments"][0] == 1]
    assert data.codec(dataset.tokenizer.dumps()).decode(first) in CORPUS


def test_what_is_missing_or_another(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no tokenizer: neither tokenizer.json"):
        tokenizer_file(tmp_path)
    folder = write(tmp_path / "t", byte_level())
    with pytest.raises(DataError, match=r"names a token that ends documents"):
        tokenizer_file(folder)
    spec = tokenizer_file(write(tmp_path / "t", byte_level(), eos_token=END))
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + " ")
    with pytest.raises(DataError, match=r"isn't the tokenizer it was"):
        spec.train(())
