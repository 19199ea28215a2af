"""Making the arms of an ablation equally large."""

from __future__ import annotations

from lm.config import ConfigError, get, replace
from lm.train.run import Run

LARGEST = 1 << 20  # multiples that are tried


def quantity(run: Run, name: str) -> int:
    """What a match makes equal: parameters, those of a token, FLOPs of a row forward, or numbers cached after a row."""
    cost = run.cost
    return {"params": cost.params, "active": cost.active, "flops": cost.flops, "kv_bytes": cost.cache}[name]


def matched(run: Run, target: Run, name: str, path: str, multiple: int, arm: str) -> tuple[Run, int]:
    """`run` with the size at `path`, a multiple of `multiple`, that brings `name` nearest to `target`'s."""
    get(run, path)  # a path that doesn't exist is best said as such
    goal = quantity(target, name)

    def at(k: int) -> int:
        return quantity(replace(run, {path: k * multiple}), name)

    if at(1) == at(2):
        raise ConfigError(f"arm {arm}: {name} doesn't depend on {path}, so it can't be matched by it; set adjust=")
    if at(1) > goal:
        raise ConfigError(
            f"arm {arm}: even {path}={multiple} gives more {name} ({at(1):,}) than the baseline ({goal:,})"
        )
    low, high = 1, 2
    while at(high) < goal:
        low, high = high, high * 2
        if high > LARGEST:
            raise ConfigError(
                f"arm {arm}: no {path} up to {LARGEST * multiple:,} reaches the baseline's {name}, {goal:,}"
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle) <= goal else (low, middle)
    best = min((low, high), key=lambda k: abs(at(k) - goal))
    return replace(run, {path: best * multiple}), best * multiple


def at_flops(run: Run, flops: int) -> tuple[Run, int]:
    """`run` with the number of steps whose training FLOPs are nearest to `flops`."""
    steps = max(1, round(flops / (run.flops / run.train.steps)))
    return replace(run, {"train.steps": steps}), steps
