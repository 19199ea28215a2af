"""How tensors of the two layouts become each other: every form is a bijection, written both ways.

Shapes are ours, of one layer. Tensors are NumPy arrays; no form computes with their values.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lm.hub.errors import HubError

Arrays = list[np.ndarray]
Shape = tuple[int, ...]
Shapes = Sequence[Shape]


class Form(abc.ABC):
    """`load` makes our arrays, of the given shapes, of their tensors; `save` makes their tensors of ours."""

    @abc.abstractmethod
    def load(self, theirs: Arrays, shapes: Shapes) -> Arrays: ...

    @abc.abstractmethod
    def save(self, ours: Arrays) -> Arrays: ...

    def rows(self, shape: Shape) -> int:
        """The first dimension of the tensor of an array of this shape, for forms that join several."""
        raise NotImplementedError


@dataclass(frozen=True)
class Same(Form):
    """The same array."""

    def load(self, theirs: Arrays, shapes: Shapes) -> Arrays:
        return theirs

    def save(self, ours: Arrays) -> Arrays:
        return ours

    def rows(self, shape: Shape) -> int:
        return shape[0]


@dataclass(frozen=True)
class Flat(Form):
    """A vector that has several dimensions here, such as heads and their width."""

    def load(self, theirs: Arrays, shapes: Shapes) -> Arrays:
        return [t.reshape(shape) for t, shape in zip(theirs, shapes, strict=True)]

    def save(self, ours: Arrays) -> Arrays:
        return [a.reshape(-1) for a in ours]

    def rows(self, shape: Shape) -> int:
        return math.prod(shape)


@dataclass(frozen=True)
class Dense(Form):
    """A linear layer: [out, in] there, [*in, *out] here, where `inputs` dimensions are the input's."""

    inputs: int = 1

    def load(self, theirs: Arrays, shapes: Shapes) -> Arrays:
        return [t.T.reshape(shape) for t, shape in zip(theirs, shapes, strict=True)]

    def save(self, ours: Arrays) -> Arrays:
        return [a.reshape(math.prod(a.shape[: self.inputs]), -1).T for a in ours]

    def rows(self, shape: Shape) -> int:
        return math.prod(shape[self.inputs :])


@dataclass(frozen=True)
class Transposed(Form):
    """Their tensors transposed, then as `then` says: GPT-2 keeps its linear layers as [in, out]."""

    then: Form

    def load(self, theirs: Arrays, shapes: Shapes) -> Arrays:
        return self.then.load([t.T for t in theirs], shapes)

    def save(self, ours: Arrays) -> Arrays:
        return [t.T for t in self.then.save(ours)]


@dataclass(frozen=True)
class Joined(Form):
    """One tensor of several of ours, one after another along its first dimension."""

    then: Form

    def load(self, theirs: Arrays, shapes: Shapes) -> Arrays:
        cuts = np.cumsum([self.then.rows(shape) for shape in shapes])
        return self.then.load(np.split(theirs[0], cuts[:-1]), shapes)

    def save(self, ours: Arrays) -> Arrays:
        return [np.concatenate(self.then.save(ours))]


@dataclass(frozen=True)
class ByHead(Form):
    """Several of ours in one tensor, head after head: with one key head's G queries, its key and its value it is the
    order of GPT-NeoX and Bloom (G = 1), of one key head (plain), and between them of Falcon.
    """

    heads: int
    then: Form

    def load(self, theirs: Arrays, shapes: Shapes) -> Arrays:
        fused = theirs[0]
        by_head = fused.reshape(self.heads, -1, *fused.shape[1:])
        cuts = np.cumsum([self.then.rows(shape) // self.heads for shape in shapes])
        parts = np.split(by_head, cuts[:-1], axis=1)
        return self.then.load([part.reshape(-1, *fused.shape[1:]) for part in parts], shapes)

    def save(self, ours: Arrays) -> Arrays:
        parts = [t.reshape(self.heads, -1, *t.shape[1:]) for t in self.then.save(ours)]
        fused = np.concatenate(parts, axis=1)
        return [fused.reshape(-1, *fused.shape[2:])]


@dataclass(frozen=True)
class Each(Form):
    """One array of several of their tensors, stacked along a first dimension: experts."""

    then: Form

    def load(self, theirs: Arrays, shapes: Shapes) -> Arrays:
        return [np.stack([self.then.load([t], [shapes[0][1:]])[0] for t in theirs])]

    def save(self, ours: Arrays) -> Arrays:
        return [self.then.save([a])[0] for a in ours[0]]


@dataclass(frozen=True)
class Stacked(Form):
    """Several of our arrays from as many tensors that have a first dimension of their own, such as experts."""

    then: Form

    def load(self, theirs: Arrays, shapes: Shapes) -> Arrays:
        inner = [shape[1:] for shape in shapes]
        made = [self.then.load(list(parts), inner) for parts in zip(*theirs, strict=True)]
        return [np.stack(arrays) for arrays in zip(*made, strict=True)]

    def save(self, ours: Arrays) -> Arrays:
        made = [self.then.save(list(parts)) for parts in zip(*ours, strict=True)]
        return [np.stack(arrays) for arrays in zip(*made, strict=True)]


@dataclass(frozen=True)
class Alike(Form):
    """One tensor that is several arrays of ours: what all layers share there and only those of a stack do here."""

    def load(self, theirs: Arrays, shapes: Shapes) -> Arrays:
        return theirs * len(shapes)

    def save(self, ours: Arrays) -> Arrays:
        if any(not np.array_equal(ours[0], other) for other in ours[1:]):
            raise HubError("layers of several stacks have different parameters where transformers has one for them all")
        return ours[:1]


@dataclass(frozen=True)
class Row(Form):
    """Theirs has a first dimension of 1."""

    then: Form

    def load(self, theirs: Arrays, shapes: Shapes) -> Arrays:
        return self.then.load([t.squeeze(0) for t in theirs], shapes)

    def save(self, ours: Arrays) -> Arrays:
        return [t[None] for t in self.then.save(ours)]


@dataclass(frozen=True)
class Unpaired(Form):
    """Rotary pairs: theirs are neighbours (0, 1), (2, 3), ..., ours are half a width apart.

    On the last dimension of ours, its `width` entries from `start`; None: to the end. Queries and keys are permuted
    alike, so their products stay.
    """

    then: Form
    width: int | None = None
    start: int = 0

    def load(self, theirs: Arrays, shapes: Shapes) -> Arrays:
        return [a[..., self._order(a)] for a in self.then.load(theirs, shapes)]

    def save(self, ours: Arrays) -> Arrays:
        return self.then.save([a[..., np.argsort(self._order(a))] for a in ours])

    def rows(self, shape: Shape) -> int:
        return self.then.rows(shape)

    def _order(self, array: np.ndarray) -> np.ndarray:
        index = np.arange(array.shape[-1])
        stop = len(index) if self.width is None else self.start + self.width
        turned = index[self.start : stop]
        return np.concatenate([index[: self.start], turned[::2], turned[1::2], index[stop:]])


@dataclass(frozen=True)
class Apart(Form):
    """A form for each of our arrays, inside `Joined` or `ByHead`: queries and keys are turned, values not."""

    forms: tuple[Form, ...]

    def load(self, theirs: Arrays, shapes: Shapes) -> Arrays:
        parts = zip(self.forms, theirs, shapes, strict=True)
        return [form.load([t], [shape])[0] for form, t, shape in parts]

    def save(self, ours: Arrays) -> Arrays:
        return [form.save([a])[0] for form, a in zip(self.forms, ours, strict=True)]

    def rows(self, shape: Shape) -> int:
        return self.forms[0].rows(shape)


@dataclass(frozen=True)
class Table(Form):
    """Token tables: ours may have more rows than the vocabulary."""

    vocab: int

    def load(self, theirs: Arrays, shapes: Shapes) -> Arrays:
        pad = [(0, shapes[0][0] - self.vocab)] + [(0, 0)] * (theirs[0].ndim - 1)
        return [np.pad(theirs[0], pad)]

    def save(self, ours: Arrays) -> Arrays:
        return [ours[0][: self.vocab]]


@dataclass(frozen=True)
class After(Form):
    """Theirs has so many rows before the first of ours, which no token meets (RoBERTa's and BART's positions)."""

    unused: int

    def load(self, theirs: Arrays, shapes: Shapes) -> Arrays:
        return [theirs[0][self.unused :]]

    def save(self, ours: Arrays) -> Arrays:
        return [np.pad(ours[0], [(self.unused, 0), (0, 0)])]


@dataclass(frozen=True)
class Taps(Form):
    """A convolution of each channel by itself: [channels, 1, taps] there, [taps, *channels] here."""

    def load(self, theirs: Arrays, shapes: Shapes) -> Arrays:
        return [t[:, 0].T.reshape(shape) for t, shape in zip(theirs, shapes, strict=True)]

    def save(self, ours: Arrays) -> Arrays:
        return [a.reshape(len(a), -1).T[:, None] for a in ours]

    def rows(self, shape: Shape) -> int:
        return math.prod(shape[1:])
