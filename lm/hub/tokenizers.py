"""The tokenizer files of a checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lm.data import Codec
from lm.data.errors import DataError
from lm.data.tokenizer_files import END, MODELS, FileCodec, SentencePieceCodec, as_tokenizer_json

NAMES = (
    "tokenizer.json", *MODELS, "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "chat_template.jinja",
)  # fmt: skip


def copy(source: Path, target: Path) -> None:
    """All of them that there are."""
    for name in NAMES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def write(codec: Codec, target: Path) -> None:
    """A codec of ours as files that transformers' AutoTokenizer reads. Raises DataError where it has no such form."""
    if isinstance(codec, SentencePieceCodec):
        raise DataError("a SentencePiece model has no tokenizer.json; copy its own file beside the exported model")
    (target / "tokenizer.json").write_text(as_tokenizer_json(codec), encoding="utf-8")
    begin, end = (codec.names[codec.bos], codec.names[codec.eot]) if isinstance(codec, FileCodec) else (END, END)
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": begin, "eos_token": end}
    (target / "tokenizer_config.json").write_text(json.dumps(said, indent=2) + "\n")
