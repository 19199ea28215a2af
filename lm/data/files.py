"""Files as a stream of bytes: finding them, undoing compression, cutting them into pieces, hashing them."""

from __future__ import annotations

import functools
import glob
import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from lm.data.errors import DataError

CHUNK = 1 << 20
COMPRESSED = (".gz", ".zst")


def find(path: str, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of `path` (a file, a folder or a glob) in the order of their names.

    A folder gives all files below it with one of `suffixes`, hidden ones left out; a file or a glob gives
    whatever it names. Raises DataError when there is none.
    """
    root = Path(os.path.expanduser(path))
    if root.is_dir():
        below = (f for f in root.rglob("*") if not any(p.startswith(".") for p in f.relative_to(root).parts))
        found = [f for f in below if f.name.lower().endswith(suffixes) and f.is_file()]
        if not found:
            listed = ", ".join(suffixes)
            raise DataError(f"no file in the folder {path} ends in {listed}; give a glob such as '{root / '**' / '*'}'")
        return sorted(found, key=lambda f: f.relative_to(root).as_posix())
    if root.exists():
        return [root]
    found = [Path(f) for f in glob.glob(str(root), recursive=True) if os.path.isfile(f)]
    if not found:
        kind = "no file matches" if glob.has_magic(str(root)) else "there is no file or folder"
        raise DataError(f"{kind} {path} (looked in {Path.cwd()})")
    return sorted(found, key=lambda f: f.as_posix())


def chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, decompressed when its name ends in .gz or .zst. Raises DataError if it can't be read."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk
        elif path.suffix == ".zst":
            yield from _zstd(path)
        else:
            yield from _raw(path)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is cut short or damaged ({error}); make or download it again") from None
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}") from None


def _raw(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _zstd(path: Path) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise DataError(f"{path} is Zstandard-compressed; reading it needs: pip install 'lm[files]'") from None
    frame = None
    try:
        for chunk in _raw(path):
            while chunk:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                yield frame.decompress(chunk)
                chunk, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    except zstandard.ZstdError as error:
        raise DataError(f"{path} is damaged ({error}); make or download it again") from None
    if frame is not None:  # the library's own reader takes a missing end for the end
        raise DataError(f"{path} is cut short: its last Zstandard frame has no end; make or download it again")


def pieces(path: Path, separator: bytes) -> Iterator[tuple[int, bytes]]:
    """What stands between separators, each with its byte offset in the decompressed file."""
    rest, offset = b"", 0
    for chunk in chunks(path):
        *whole, rest = (rest + chunk).split(separator)
        for piece in whole:
            yield offset, piece
            offset += len(piece) + len(separator)
    if rest:
        yield offset, rest


def decode(raw: bytes, path: Path, offset: int = 0) -> str:
    """Bytes at `offset` of a file as text. Raises DataError that names the first byte that isn't UTF-8."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        at = offset + error.start
        fix = f"convert it, for instance: iconv -f latin1 -t utf-8 {path.name}"
        raise DataError(f"{path} is not UTF-8: byte 0x{raw[error.start]:02x} at offset {at:,}; {fix}") from None


def digest(paths: Iterable[Path], *salt: str) -> str:
    """Hash of the files' contents (decompressed) in order, and of `salt`; the names don't count."""
    whole = hashlib.blake2b(digest_size=16)
    for part in salt:
        whole.update(part.encode() + b"\0")
    for path in paths:
        try:
            stat = path.stat()
        except OSError as error:
            raise DataError(f"{path} can't be read: {error.strerror or error}") from None
        whole.update(_file_digest(path.absolute(), stat.st_size, stat.st_mtime_ns))
    return whole.hexdigest()


@functools.lru_cache(maxsize=1 << 16)
def _file_digest(path: Path, size: int, changed: int) -> bytes:
    one = hashlib.blake2b(digest_size=16)
    for chunk in chunks(path):
        one.update(chunk)
    return one.digest()
