"""Is a run what its folder says? Some of its steps done again and compared with what was written then, to the bit."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lm import data
from lm.errors import UserError
from lm.sharding import Layout, layout
from lm.train.checkpoint import Checkpoints
from lm.train.fleet import Alone
from lm.train.folder import RunFolder
from lm.train.provenance import provenance
from lm.train.rows import read

MEASURED = frozenset({"seconds", "tokens_per_second", "mfu", "bits_per_byte", "tokens", "step", "split"})


@dataclass(frozen=True)
class Verdict:
    """Steps that were done again (`first` exclusive, `last` inclusive), how many numbers of rows and arrays of
    checkpoints were compared, where they differ, and what was otherwise than when the run was done."""

    first: int
    last: int
    numbers: int
    arrays: int
    differences: tuple[str, ...]
    circumstances: tuple[str, ...]

    @property
    def equal(self) -> bool:
        return not self.differences

    def text(self) -> str:
        done = f"steps {self.first + 1} to {self.last} done again"
        compared = f"{self.numbers} numbers of rows" + (f" and {self.arrays} arrays" if self.arrays else "")
        if self.equal:
            return f"{done}: {compared} equal to the bit"
        lines = [f"{done}: {len(self.differences)} differences in {compared}", *self.differences[:5]]
        if self.circumstances:
            lines.append("otherwise than when the run was done: " + "; ".join(self.circumstances))
        return "\n".join(lines)


def verify(path: str | Path, steps: int = 20, where: Layout | None = None) -> Verdict:
    """Does `steps` steps of a run again, from the oldest checkpoint that has steps after it, or from the start.

    Compares every training row, and the state with a checkpoint at the end of a stretch. The run's folder isn't
    changed. Raises UserError if the data has changed or nothing was written that could be compared.
    """
    if steps < 1:
        raise UserError(f"steps={steps} must be at least 1")
    home = RunFolder(Path(path))
    run, where = home.config(), where or layout()
    home.check(run, data.fingerprint(run.data))
    rows = {row["step"]: row for row in read(home.rows) if row["split"] == "train"}
    if not rows:
        raise UserError(f"{path} has no rows yet; there is nothing to compare with")
    checkpoints = Checkpoints(home.checkpoints, keep=run.record.keep)
    saved = checkpoints.steps()
    first = min((step for step in saved if step < max(rows)), default=0)
    last = min(first + steps, max(rows))
    if not any(first < step <= last for step in rows):
        last = min(step for step in rows if step > first)
    engine = Alone(run, where)
    state = (
        checkpoints.restore(engine.program.abstract_state(), first)
        if first
        else engine.program.init(run.seed, run.train.init_scale)
    )
    arrays, numbers, differences = 0, 0, []
    stops = sorted({last, *(step for step in saved if first < step <= last)})
    source, step = run.dataset().batches(start=first), first
    while step < last:
        count = min(engine.together, next(s for s in stops if s > step) - step)
        state, metrics = engine.advance(state, [list(itertools.islice(source, count))])
        found = {name: np.atleast_1d(value) for name, value in jax.device_get(metrics).items()}
        for index in range(count):
            again = {name: values[index].item() for name, values in found.items()}
            compared, wrong = _compare(rows.get(step + index + 1), again)
            numbers, differences = numbers + compared, differences + wrong
        step += count
        if step in saved:
            compared, wrong = _compare_states(checkpoints.restore(engine.program.abstract_state(), step), state, step)
            arrays, differences = arrays + compared, differences + wrong
    checkpoints.close()
    return Verdict(first, last, numbers, arrays, tuple(differences), _circumstances(home))


def _compare(row: dict[str, Any] | None, again: dict[str, float]) -> tuple[int, list[str]]:
    if row is None:
        return 0, []
    names = [name for name in again if name in row and name not in MEASURED]
    wrong = [name for name in names if not _same(row[name], again[name])]
    return len(names), [f"{name} at step {row['step']}: {row[name]} then, {again[name]} now" for name in wrong]


def _same(then: float, now: float) -> bool:
    return then == now or (math.isnan(then) and math.isnan(now))


def _compare_states(then: Any, now: Any, step: int) -> tuple[int, list[str]]:
    differences, count = [], 0
    for (path, a), b in zip(jax.tree.leaves_with_path(then), jax.tree.leaves(now), strict=True):
        count += 1
        if np.asarray(a).tobytes() != np.asarray(b).tobytes():
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            differences.append(f"{name} of the checkpoint of step {step} differs")
    return count, differences


def _circumstances(home: RunFolder) -> tuple[str, ...]:
    """What is otherwise now than at the run's last start and may change bits."""
    then, now = home.starts()[-1], provenance()
    together = home.result().get("together", 1) if home.status() == "done" else 1
    packages = {name: (then["packages"].get(name), version) for name, version in now["packages"].items()}
    changed = [f"{name}: {old} then, {new} now" for name, (old, new) in packages.items() if old != new]
    if together > 1:
        changed.append(f"one program with {together} runs then, alone now")
    for name in ("devices", "cores", "platform", "environment"):
        if then.get(name) != now.get(name):
            changed.append(f"{name}: {then.get(name)} then, {now.get(name)} now")
    before, after = then.get("git") or {}, now.get("git") or {}
    if (before.get("commit"), before.get("patch")) != (after.get("commit"), after.get("patch")):
        changed.append(
            f"code: commit {before.get('commit', 'unknown')} then, {after.get('commit', 'unknown')} now, "
            "or what wasn't committed"
        )
    return tuple(changed)
