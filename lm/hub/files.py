"""Safetensors files of a checkpoint, one or several with an index. Other formats can hold code and aren't read."""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lm.files import reason
from lm.hub.errors import HubError

ONE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = 5 << 30  # bytes of a file, at most


class Tensors:
    """The tensors of a folder by name; each is read when it is asked for."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._files: dict[str, Any] = {}
        self._where = self._find()
        self._old = {name: name for name in self._where}

    def rename(self, rename: Callable[[str], str]) -> None:
        """Gives each tensor another name. Raises HubError where two get the same."""
        renamed = {rename(name): name for name in self._where}
        if len(renamed) < len(self._where):
            twice = min(name for name in self._where if renamed[rename(name)] != name)
            raise HubError(f"{self.folder} has both {twice} and {renamed[rename(twice)]}, which are the same tensor")
        self._old = renamed

    def _find(self) -> dict[str, str]:
        index = self.folder / INDEX
        if index.exists():
            try:
                named = dict(json.loads(index.read_text())["weight_map"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise HubError(f"{index} can't be read: {type(error).__name__}: {error}") from None
            for file in sorted(set(named.values())):
                absent = sorted({name for name, at in named.items() if at == file} - set(self._open(file).keys()))
                if absent:
                    raise HubError(f"{INDEX} says that {absent[0]} is in {file}, and it isn't there")
            return named
        if (self.folder / ONE).exists():
            return dict.fromkeys(self._open(ONE).keys(), ONE)
        if found := sorted(p.name for p in self.folder.glob("*.bin")):
            raise HubError(
                f"{self.folder} has {found[0]} and no safetensors; pickled files can run code when they are read, so "
                "lm doesn't: convert it with transformers' save_pretrained(..., safe_serialization=True)"
            )
        raise HubError(f"{self.folder} has neither {ONE} nor {INDEX}")

    def _open(self, file: str) -> Any:
        if file not in self._files:
            try:
                self._files[file] = safe_open(self.folder / file, "np")
            except (OSError, SafetensorError) as error:
                raise HubError(f"{self.folder / file} can't be read: {error}") from None
        return self._files[file]

    def names(self) -> set[str]:
        return set(self._old)

    def __getitem__(self, name: str) -> np.ndarray:
        old = self._old[name]
        return self._open(self._where[old]).get_tensor(old)


def write(folder: Path, tensors: Iterator[tuple[str, np.ndarray]], shard: int = SHARD) -> None:
    """Writes tensors as they come, at most `shard` bytes a file, with an index where there are several files."""
    parts: list[Path] = []
    where: dict[str, int] = {}
    held: dict[str, np.ndarray] = {}
    size = total = 0

    def flush() -> None:
        nonlocal held, size
        parts.append(folder / f"part-{len(parts)}.tmp")
        save_file(held, parts[-1], metadata={"format": "pt"})
        held, size = {}, 0

    for name, tensor in tensors:
        if held and size + tensor.nbytes > shard:
            flush()
        held[name], where[name] = np.ascontiguousarray(tensor), len(parts)
        size, total = size + tensor.nbytes, total + tensor.nbytes
    flush()
    if len(parts) == 1:
        parts[0].rename(folder / ONE)
        return
    names = [f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors" for i in range(len(parts))]
    for part, name in zip(parts, names, strict=True):
        part.rename(folder / name)
    index = {"metadata": {"total_size": total}, "weight_map": {name: names[i] for name, i in where.items()}}
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True))


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to fill, which is at `path` once all is in it. Raises HubError where something is there already."""
    folder = Path(path)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise HubError(f"{folder} isn't empty; give a new folder")
    part = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    try:
        part.mkdir(parents=True)
        yield part
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    except (OSError, SafetensorError) as error:
        raise HubError(f"can't write {folder}: {reason(error)}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
