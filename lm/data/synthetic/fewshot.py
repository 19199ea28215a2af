"""Labels that are known or shown: learning in the weights against learning in the context."""

from __future__ import annotations

import numpy as np

from lm.config import ConfigError, config
from lm.data.synthetic.task import MARK, Examples, Task, uniforms

DRAWN = (1 << 63) + 2  # the seed of what is drawn once: no run has it


@config
class FewShot(Task):
    """MARK item label .. item label query label: a classification of which examples may be shown (after Chan et al.
    2022, "Data distributional properties drive emergent in-context learning in transformers").

    Each of the `classes` items has a usual label of the `labels`, drawn once for all and as equally often as can be
    (`usual_labels`). A row has `ways` different items; with probability `usual` they have their usual labels, and
    otherwise those that the row draws: different ones in random order (more ways than labels: all of them again).
    `shots` pairs show each item equally often, in random order, and the query is one of the items. Answers are its
    label and that of each pair whose item was shown before. With probability `bare` nothing is shown: MARK query
    label, and MARK in the rest of the row.

    kinds: 0 bare, 1 shown. There are only as many bare questions as classes: take heldout=0, or some items are never
    asked without examples in training, and only those are in the test.
    """

    classes: int = 32
    labels: int = 4
    ways: int = 4
    shots: int = 8
    usual: float = 0.5
    bare: float = 0.25

    def __post_init__(self) -> None:
        if self.labels < 2:
            raise ConfigError(f"FewShot.labels={self.labels} must be at least 2, or the answer is known")
        if not 1 <= self.ways <= self.classes:
            raise ConfigError(f"FewShot.ways={self.ways} must be from 1 to its classes={self.classes}")
        if self.shots < 1 or self.shots % self.ways:
            raise ConfigError(
                f"FewShot.shots={self.shots} must be a multiple of ways={self.ways}: each is shown equally often"
            )
        for field in ("usual", "bare"):
            if not 0 <= getattr(self, field) <= 1:
                raise ConfigError(f"FewShot.{field}={getattr(self, field):g} is a probability, from 0 to 1")

    @property
    def symbols(self) -> tuple[str, ...]:
        return (*(f" x{item}" for item in range(self.classes)), *(f" y{label}" for label in range(self.labels)))

    @property
    def length(self) -> int:
        return 2 * self.shots + 2

    @property
    def draws(self) -> int:
        return 3 + self.classes + self.labels + self.shots

    @property
    def usual_labels(self) -> np.ndarray:
        """The label, from 0 on, that each item usually has [classes]."""
        return np.argsort(uniforms(DRAWN, 0, 0, 1, self.classes)[0], kind="stable") % self.labels

    @property
    def best_bare(self) -> float:
        """The accuracy of the best predictor where nothing is shown: it says the usual label, which is also one in
        `labels` of those that are drawn."""
        return self.usual + (1 - self.usual) / self.labels

    @property
    def best_shown(self) -> float:
        """The accuracy of the best predictor where examples are shown: it repeats the label of the query."""
        return 1.0

    def make(self, u: np.ndarray) -> Examples:
        bare, usual = u[:, :1] < self.bare, u[:, 1:2] < self.usual
        asked = (u[:, 2:3] * self.ways).astype(np.int64)
        by_item, by_label, by_shot = np.split(u[:, 3:], [self.classes, self.classes + self.labels], axis=1)
        items = np.argsort(by_item, axis=1, kind="stable")[:, : self.ways]
        fresh = np.argsort(by_label, axis=1, kind="stable")[:, np.arange(self.ways) % self.labels]
        labels = np.where(usual, self.usual_labels[items], fresh)
        # the ways in the order they are shown, and last the one that is asked
        order = np.concatenate([np.argsort(by_shot, axis=1, kind="stable") % self.ways, asked], axis=1)
        pairs = np.full((len(u), self.length + 1), MARK)
        pairs[:, 1::2] = 1 + np.take_along_axis(items, order, axis=1)
        pairs[:, 2::2] = 1 + self.classes + np.take_along_axis(labels, order, axis=1)
        told = np.zeros(pairs.shape, bool)
        for pair in range(1, self.shots + 1):
            told[:, 2 * pair + 2] = (order[:, :pair] == order[:, pair : pair + 1]).any(1)
        alone = np.full_like(pairs, MARK)
        alone[:, 1:3] = pairs[:, -2:]
        return Examples(np.where(bare, alone, pairs), np.where(bare, np.arange(self.length + 1) == 2, told))

    @property
    def kind_names(self) -> tuple[str, ...]:
        return "bare", "shown"

    def kinds(self, examples: Examples) -> np.ndarray:
        return np.where(examples.tokens[:, 3] == MARK, 0, 1)
