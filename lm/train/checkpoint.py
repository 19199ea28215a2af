"""Checkpoints of a run: written behind the training step by Orbax, checked when they are read.

A checkpoint is a folder named by its step, which appears only when it is complete (Orbax renames it into place).
Arrays are stored under flat names ("params.block.up"), so any tree of arrays can be saved (dicts, named tuples,
optax states), part of it can be read back, and arrays go to whatever shardings the reader asks for.

Beside the arrays lie the run's config and the arrays' shapes, and `files.json`: the size and CRC-32 of every file.
It is written once a save is known to be complete (at the next save, `wait` or `close`); a checkpoint without it,
left by a process that was killed, is checked by Orbax alone.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import shutil
import sys
import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from lm.errors import UserError
from lm.files import first_line, reason, write_atomically

CRC_LIMIT = 1 << 28  # bytes; larger files are checked by size alone, a checksum would hold up the next save


class CheckpointError(UserError):
    """A checkpoint that can't be written or read, with the newest intact one where there is one."""


class Checkpoints:
    """The checkpoints in one folder. `keep`: how many of the latest stay; None keeps all.

    Reading changes nothing in the folder, so a run may be read while another process trains it. Only the process
    that holds the run's lock may save.
    """

    def __init__(self, folder: str | Path, keep: int | None = 2) -> None:
        if keep is not None and keep < 1:
            raise CheckpointError(f"keep={keep} checkpoints: it must be 1 or more, or None to keep all")
        self.folder = Path(folder).absolute()
        self.keep = keep
        self._writes = False
        self._unlisted: set[int] = set()  # steps saved here whose files aren't listed yet
        self._used: Any = None

    @property
    def _ocp(self) -> Any:
        """Orbax, which takes a third of a second to import: a new run's first step doesn't wait for it."""
        import orbax.checkpoint

        return orbax.checkpoint

    @property
    def _manager(self) -> Any:
        if self._used is None:
            from orbax.checkpoint.checkpoint_managers import LatestN

            # Every failure comes back as an exception, which we report; Orbax logs a traceback for each as well.
            logging.getLogger("absl").addFilter(_not_from_orbax)
            options = self._ocp.CheckpointManagerOptions(
                preservation_policy=LatestN(self.keep),
                create=False,
                lightweight_initialize=True,
                save_root_metadata=False,
            )
            with self._explained(f"can't use {self.folder} for checkpoints"):
                self._used = self._ocp.CheckpointManager(self.folder, options=options)
        return self._used

    def save(self, step: int, state: Any, config: str = "") -> None:
        """Starts writing `state` (a tree of arrays, which may be donated right after) and returns.

        Waits for the save before, and raises CheckpointError if that one failed. A step that is there already is
        left alone.
        """
        self.wait()
        arrays = _flat(state)
        shapes = {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in arrays.items()}
        about = {"config": config, "arrays": shapes}
        with self._explained(f"the checkpoint of step {step} couldn't be written to {self.folder}", step):
            if not self._writes:
                self._tidy()
            done = self._manager.save(step, args=self._ocp.args.PyTreeSave(arrays), custom_metadata=about)
        if done:
            self._unlisted.add(step)
        elif step not in self._steps():
            raise CheckpointError(
                f"step {step} can't be saved in {self.folder}, which has step {max(self._steps())}; "
                "drop the newer ones (truncate_after) when a run starts again from an older step"
            )

    def wait(self) -> None:
        """Returns when nothing is being written. Raises CheckpointError if the last save failed."""
        if self._used is None:
            return
        step = max(self._unlisted, default=None)
        with self._explained(f"the checkpoint of step {step} couldn't be written to {self.folder}", step):
            self._manager.wait_until_finished()
            for done in sorted(self._unlisted & set(self._steps())):
                if jax.process_index() == 0:
                    _list_files(self.folder / str(done))
        self._unlisted.clear()

    def steps(self) -> tuple[int, ...]:
        """The steps of complete checkpoints, oldest first. Waits for a save in progress."""
        self.wait()
        return self._steps()

    def latest(self) -> int | None:
        """The newest complete checkpoint's step, or None. Waits for a save in progress."""
        return max(self.steps(), default=None)

    def config(self, step: int | None = None) -> str:
        """The config text that was saved with a checkpoint (the latest unless told)."""
        return self._about(self._resolve(step))["config"]

    def restore(self, abstract: Any, step: int | None = None, partial: bool = False, cast: bool = False) -> Any:
        """The state of a checkpoint (the latest unless told), in the tree, dtypes and shardings of `abstract`.

        abstract: a tree of `jax.ShapeDtypeStruct` with shardings (or arrays); without a sharding an array goes to
        the first device. partial: read only the arrays that `abstract` has, for instance the parameters alone.
        cast: floats may be of another type there, and are rounded to that of `abstract` as they are read.
        Raises CheckpointError where there is none, where a file is missing or changed (naming the newest intact
        step before it, and what to delete to go on from there), or where names, shapes or dtypes aren't those of
        `abstract`. Never falls back by itself.
        """
        step = self._resolve(step)
        try:
            return self._restore(abstract, step, partial, cast)
        except _Damaged as damage:
            older = (s for s in reversed(self._steps()) if s < step and self._intact(s, abstract, partial, cast))
            advice = self._way_out(step, next(older, None))
            message = f"the checkpoint of step {step} in {self.folder} is damaged: {damage}; {advice}"
            raise CheckpointError(message) from (damage.__cause__ or damage)

    def truncate_after(self, step: int) -> None:
        """Deletes every checkpoint newer than `step`, for a run that starts again from there."""
        self.drop([newer for newer in self.steps() if newer > step])

    def drop(self, steps: Sequence[int]) -> None:
        """Deletes these checkpoints. Processes that train together must all name the same ones: they wait for one
        another at each."""
        self.wait()
        with self._explained(f"can't delete checkpoints in {self.folder}"):
            for step in steps:
                self._manager.delete(step)

    def close(self) -> None:
        """Waits for the last save and frees the writer's threads."""
        try:
            self.wait()
        finally:
            if self._used is not None:
                with contextlib.suppress(Exception):
                    self._used.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- reading -----------------------------------------------------------------------------------------------

    def _restore(self, abstract: Any, step: int, partial: bool, cast: bool) -> Any:
        where = f"the checkpoint of step {step} in {self.folder}"
        damage = _changed_file(self.folder / str(step))
        if damage:
            raise _Damaged(damage)
        wanted = {name: _placed(leaf) for name, leaf in _flat(abstract).items()}
        _compare(wanted, self._about(step)["arrays"], where, partial, cast)
        placed = self._ocp.checkpoint_utils.construct_restore_args(wanted)
        args = self._ocp.args.PyTreeRestore(wanted, restore_args=placed, partial_restore=partial)
        with _hushed():
            arrays = self._manager.restore(step, args=args)
        return jax.tree.unflatten(jax.tree.structure(abstract), [arrays[name] for name in wanted])

    def _intact(self, step: int, abstract: Any, partial: bool, cast: bool) -> bool:
        try:
            if not (self.folder / str(step) / "files.json").exists():
                self._restore(abstract, step, partial, cast)
            return _changed_file(self.folder / str(step)) is None
        except (UserError, _Damaged):
            return False

    def _way_out(self, damaged: int, intact: int | None) -> str:
        """What to delete so that a run, which continues from its newest checkpoint, can go on."""
        if intact is not None:
            bad = " and ".join(str(self.folder / str(step)) for step in self._steps() if intact < step <= damaged)
            return f"step {intact} is intact: delete {bad} to continue from it"
        if damaged < max(self._steps()):
            return "no older step is intact"
        return f"no older step is intact: delete {self.folder} to start over"

    def _about(self, step: int) -> dict[str, Any]:
        try:
            about = self._manager.metadata(step).custom_metadata
        except Exception as error:
            raise _Damaged(first_line(error)) from error
        if not about or "arrays" not in about:
            raise _Damaged("its _CHECKPOINT_METADATA can't be read")
        return about

    def _resolve(self, step: int | None) -> int:
        steps = self.steps()
        if not steps:
            raise CheckpointError(f"there is no checkpoint in {self.folder}")
        if step is not None and step not in steps:
            raise CheckpointError(f"there is no checkpoint of step {step} in {self.folder}; it has {list(steps)}")
        return steps[-1] if step is None else step

    def _tidy(self) -> None:
        """Before the first save: the folder is there, and what a killed process left half-written isn't."""
        if jax.process_index() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            for unfinished in self.folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(unfinished, ignore_errors=True)
        self._writes = True

    def _steps(self) -> tuple[int, ...]:
        if not self.folder.is_dir():
            return ()
        return tuple(sorted(self._ocp.utils.checkpoint_steps(self.folder)))

    @contextlib.contextmanager
    def _explained(self, what: str, step: int | None = None) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._unlisted.discard(step or -1)
            kept = ""
            if step is not None:
                for unfinished in self.folder.glob(f"{step}.orbax-checkpoint-tmp*"):
                    shutil.rmtree(unfinished, ignore_errors=True)
                self._manager.reload()  # it has forgotten those it was about to delete
                kept = f"; the last good one is of step {max(self._steps())}" if self._steps() else ""
            raise CheckpointError(f"{what}: {reason(error)}{kept}") from error


class _Damaged(Exception):
    """What is wrong with a checkpoint's files."""


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Turns any error of reading arrays into _Damaged, without the pages that TensorStore's threads print after it."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    reason = None
    try:
        try:
            yield
        except Exception as error:  # from KeyError to a bare Exception
            reason = first_line(error)
        if reason is not None:
            time.sleep(0.1)  # for the threads that still report to an event loop that is gone
            with warnings.catch_warnings(action="ignore"):
                gc.collect()
            raise _Damaged(reason)
    finally:
        sys.unraisablehook = hook


def _flat(tree: Any) -> dict[str, Any]:
    """The arrays of a tree by name, in the tree's order."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _placed(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _compare(wanted: dict[str, Any], stored: dict[str, Any], where: str, partial: bool, cast: bool) -> None:
    faults = [f"it has no '{name}'" for name in wanted if name not in stored]
    if not partial:
        faults += [f"it has '{name}', which this run hasn't" for name in stored if name not in wanted]
    for name, leaf in wanted.items():
        shape, dtype = stored.get(name, (list(leaf.shape), str(leaf.dtype)))
        floats = jnp.issubdtype(leaf.dtype, jnp.floating) and jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
        if list(shape) != list(leaf.shape) or (dtype != str(leaf.dtype) and not (cast and floats)):
            faults.append(f"'{name}' is {dtype}{shape} there and {leaf.dtype}{list(leaf.shape)} here")
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise CheckpointError(f"{where} is of another model or optimizer: {faults[0]}{more}")


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc


def _list_files(folder: Path) -> None:
    """Writes `files.json`: path -> [bytes, CRC-32 or null]."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "files.json":
            size = path.stat().st_size
            files[str(path.relative_to(folder))] = [size, _crc(path) if size <= CRC_LIMIT else None]
    write_atomically(folder / "files.json", json.dumps(files))


def _changed_file(folder: Path) -> str | None:
    """What is wrong with the files of a checkpoint, or None. A checkpoint without a list isn't judged."""
    listing = folder / "files.json"
    if not listing.exists():
        return None
    try:
        for name, (size, crc) in json.loads(listing.read_text()).items():
            path = folder / name
            if not path.exists():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes, not {size}"
            if crc is not None and _crc(path) != crc:
                return f"the content of {name} has changed"
    except (OSError, ValueError) as error:
        return first_line(error)
    return None


def _not_from_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in Path(record.pathname).parts
