"""Steps at equal distances on a logarithmic axis: where a curve is looked at."""

from __future__ import annotations

from lm.config import ConfigError


def log_spaced(steps: int, per_octave: int = 2, first: int = 1) -> tuple[int, ...]:
    """Whole, distinct, increasing steps in [first, steps], about `per_octave` for each doubling; `steps` is the last.

    A longer run has the same steps as a shorter one up to the shorter one's end, which is always included.
    """
    if steps < 1 or per_octave < 1 or first < 1:
        raise ConfigError(f"log_spaced({steps=}, {per_octave=}, {first=}): all must be 1 or more")
    found, n = {steps}, 0
    while (step := round(first * 2 ** (n / per_octave))) < steps:
        found.add(step)
        n += 1
    return tuple(sorted(found))
