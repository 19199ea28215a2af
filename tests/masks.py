"""What masks and sparse patterns mean, one pair of a query and a key at a time: the oracle of all their tests."""

from __future__ import annotations

import numpy as np

from lm.nn import BlockSparse, Fixed, Mask, Strided

MASKS: dict[str, Mask] = {
    "causal": Mask(),
    "window": Mask(window=3),
    "both ways": Mask(causal=False),
    "window, both ways": Mask(causal=False, window=3),
    "prefix": Mask(prefix=True),
    "prefix, window": Mask(prefix=True, window=4),
    "sinks": Mask(window=3, sinks=2),
    "global tokens": Mask(causal=False, window=2, sinks=1),
    "strided": Mask(pattern=Strided(stride=3)),
    "strided, window": Mask(window=3, pattern=Strided(stride=3)),
    "dilated": Mask(pattern=Strided(stride=2, count=3)),
    "dilated, both ways": Mask(causal=False, window=2, pattern=Strided(stride=3, count=2)),
    "fixed": Mask(pattern=Fixed(stride=4)),
    "fixed, both ways": Mask(causal=False, pattern=Fixed(stride=3, summary=2)),
    "blocks": Mask(pattern=BlockSparse(size=2)),
    "big bird": Mask(causal=False, sinks=1, pattern=BlockSparse(size=2, near=0, random=1, seed=3)),
    "everything": Mask(prefix=True, window=2, sinks=1, pattern=BlockSparse(size=2, near=0, random=1)),
}


def visible(mask: Mask, segments: np.ndarray) -> np.ndarray:
    """[L, L]: which tokens of one row each of them sees. Random blocks are asked of the pattern itself."""
    at = [i - int(np.flatnonzero(np.abs(segments) == abs(d))[0]) for i, d in enumerate(segments)]
    tokens = list(zip(at, map(int, segments), strict=True))
    return np.array([[sees(mask, q, k) for k in tokens] for q in tokens])


def sees(mask: Mask, query: tuple[int, int], key: tuple[int, int]) -> bool:
    """Whether a query may see a key, each given by its position and segment."""
    (q, q_segment), (k, k_segment) = query, key
    ordered = not mask.causal or k <= q or (mask.prefix and k_segment < 0)
    limits = [] if mask.window is None else [abs(q - k) < mask.window]
    limits += [min(q, k) < mask.sinks] if mask.sinks else []
    limits += [] if mask.pattern is None else [in_pattern(mask.pattern, q, k)]
    return abs(q_segment) == abs(k_segment) and ordered and (any(limits) or not limits)


def in_pattern(pattern: object, q: int, k: int) -> bool:
    match pattern:
        case Strided(stride=stride, count=count):
            return abs(q - k) in range(0, stride * (count or 1000), stride)
        case Fixed(stride=stride, summary=summary):
            return q // stride == k // stride or k % stride in range(stride - summary, stride)
        case BlockSparse(size=size, near=near):
            near_by = abs(q // size - k // size) <= near
            return near_by or bool(pattern.sees(np.array([q]), np.array([k]))[0])
    raise AssertionError(pattern)
