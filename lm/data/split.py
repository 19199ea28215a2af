"""Which documents are held out: a matter of the document's own text and nothing else."""

from __future__ import annotations

import hashlib

from lm.data.errors import DataError


def is_heldout(text: str, share: float) -> bool:
    """True for about `share` of all texts: those whose hash lies below it.

    So a document stays on its side whatever else the corpus holds, and copies of it are on the same side.
    Raises DataError for a string with half a surrogate pair, which no text encoding can write.
    """
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise DataError(
            f"a document that begins {text[:40]!r} has half of a surrogate pair (U+{code:04X}) at character "
            f"{error.start:,}; replace it, for instance by U+FFFD"
        ) from None
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big") < share * 2.0**64
