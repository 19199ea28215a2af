"""Text with a known structure: words that differ in gender, rank and age, among words that tell one of these each."""

from __future__ import annotations

import itertools

import numpy as np

PEOPLE = {
    ("m", "common", "old"): "man",
    ("f", "common", "old"): "woman",
    ("m", "royal", "old"): "king",
    ("f", "royal", "old"): "queen",
    ("m", "common", "young"): "boy",
    ("f", "common", "young"): "girl",
    ("m", "royal", "young"): "prince",
    ("f", "royal", "young"): "princess",
}


def documents(count: int = 6000, seed: int = 0) -> list[list[str]]:
    """Each a person and one word for each of its traits, or one time in ten for the opposite, in any order."""
    rng, people = np.random.default_rng(seed), list(PEOPLE.items())
    out = []
    for _ in range(count):
        traits, person = people[rng.integers(len(people))]
        said = _flipped(traits, tuple(np.flatnonzero(rng.random(3) < 0.1)))
        words = [person, *(f"{trait}{rng.integers(4)}" for trait in said)]
        out.append([words[i] for i in rng.permutation(4)])
    return out


def analogies() -> list[tuple[str, str, str, str]]:
    """All (a, b, c, d) in which b differs from a, and d from c, in one and the same trait, and c from a in another."""
    found = []
    for a in PEOPLE:
        for changed, other in itertools.permutations(range(3), 2):
            b, c, d = (_flipped(a, places) for places in ((changed,), (other,), (changed, other)))
            found.append((PEOPLE[a], PEOPLE[b], PEOPLE[c], PEOPLE[d]))
    return found


def _flipped(traits: tuple[str, str, str], places: tuple[int, ...]) -> tuple[str, str, str]:
    pairs = (("m", "f"), ("common", "royal"), ("old", "young"))
    x, y, z = (pair[pair.index(t) ^ (i in places)] for i, (t, pair) in enumerate(zip(traits, pairs, strict=True)))
    return x, y, z
