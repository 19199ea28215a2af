"""What a family of checkpoints answers: its config as ours and back, and which tensor is which parameter."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from lm.hub.errors import HubError
from lm.hub.fields import Fields
from lm.hub.files import Tensors
from lm.hub.forms import Dense, Flat, Form, Joined, Same
from lm.models.model import Model
from lm.models.stack import Layers
from lm.nn.block import Block


@dataclass(frozen=True)
class Rule:
    """These tensors of theirs are these parameters of ours. index: of the layer in its stack, None: not in one."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    form: Form
    index: int | None = None

    def within(self, ours: str, theirs: str, index: int | None = None) -> Rule:
        """The same with prefixes to both kinds of names."""
        names = tuple(ours + name for name in self.ours), tuple(theirs + name for name in self.theirs)
        return replace(self, ours=names[0], theirs=names[1], index=self.index if index is None else index)


class Unfit(HubError):
    """A model that isn't of a family."""


class Family(abc.ABC):
    """One `model_type`.

    read: a config as a model; every field of it is asked for. write: a model as a config, raising Unfit for one that
    isn't of this family (that `read` gives the model back is checked elsewhere). rules: its tensors.
    ignored: the ends of names of tensors that hold nothing of their own (buffers).
    """

    types: ClassVar[tuple[str, ...]]
    ignored: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def read(self, fields: Fields) -> Model: ...

    @abc.abstractmethod
    def write(self, spec: Any) -> dict[str, Any]: ...

    @abc.abstractmethod
    def rules(self, spec: Any) -> Iterable[Rule]: ...

    def settled(self, spec: Any, tensors: Tensors) -> Model:
        """The model, where its config leaves something to the tensors."""
        del tensors
        return spec

    def renamed(self, spec: Any, name: str) -> str:
        """The name that `rules` has for a tensor, where older checkpoints have another."""
        del spec
        return name

    def copies(self, spec: Any) -> Mapping[str, str]:
        """Tensors that a checkpoint may hold besides, each a copy of another of its tensors: tied tables."""
        del spec
        return {}


def same(ours: str, theirs: str) -> Rule:
    return Rule((ours,), (theirs,), Same())


def flat(ours: str, theirs: str) -> Rule:
    return Rule((ours,), (theirs,), Flat())


def linear(ours: str, theirs: str, *, bias: bool = False, inputs: int = 1, form: Form | None = None) -> Iterator[Rule]:
    """A linear layer's weight [*in, *out] of ours from theirs [out, in], and its bias where it has one."""
    yield Rule((f"{ours}.weight",), (f"{theirs}.weight",), Dense(inputs) if form is None else form)
    if bias:
        yield Rule((f"{ours}.bias",), (f"{theirs}.bias",), Flat())


def joined(ours: Sequence[str], theirs: str, *, bias: bool = False) -> Iterator[Rule]:
    """Several linear layers of one input, whose weights are one tensor, and their biases."""
    yield Rule(tuple(f"{name}.weight" for name in ours), (f"{theirs}.weight",), Joined(Dense()))
    if bias:
        yield Rule(tuple(f"{name}.bias" for name in ours), (f"{theirs}.bias",), Joined(Flat()))


def under(prefix: str, name: str, *others: str) -> str:
    """A tensor's name with the prefix that the first checkpoints lack. others: what stands beside it."""
    return name if name.startswith((prefix, *others)) else prefix + name


def norm(ours: str, theirs: str, spec: Any) -> Iterator[Rule]:
    """A norm's scale and bias; nothing where there is no norm."""
    if spec is not None:
        yield same(f"{ours}.scale", f"{theirs}.weight")
        if spec.bias:
            yield same(f"{ours}.bias", f"{theirs}.bias")


def layered(spec: Layers, theirs: str, rules: Callable[[Block], Iterable[Rule]], prefix: str = "") -> Iterator[Rule]:
    """The rules of every layer. `theirs` has {} for its number; prefix: where the trunk lies in our tree."""
    for number, (stack, index) in enumerate(spec.places()):
        for rule in rules(spec.stacks()[stack][0]):
            yield rule.within(f"{prefix}blocks.{stack}.", theirs.format(number), index)
