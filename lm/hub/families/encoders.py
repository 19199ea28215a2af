"""What families of encoders have in common: an encoder alone, or with one of the heads that transformers has."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lm.hub.errors import HubError
from lm.hub.family import Family, Rule, Unfit, linear, norm, same
from lm.hub.fields import Fields
from lm.hub.forms import Table
from lm.models.encoder import Encoder
from lm.models.headed import Headed
from lm.models.heads import Classifier, Head, MaskedLM, Pooling
from lm.models.model import Model
from lm.nn.feedforward import GELU, Activation

EXACT_GELU = GELU(approximate=False)


class Task(abc.ABC):
    """A head and its tensors' names.

    read: fields of a config as the head. write: the head as fields, None for one that isn't of this task. rules: its
    tensors; ours without the place of the head in the model. copies: see `Family.copies`.
    """

    @abc.abstractmethod
    def read(self, fields: Fields, body: Encoder) -> Head: ...

    @abc.abstractmethod
    def write(self, head: Head) -> dict[str, Any] | None: ...

    @abc.abstractmethod
    def rules(self, head: Any, body: Encoder) -> Iterable[Rule]: ...

    def copies(self, head: Any, table: str) -> dict[str, str]:
        """table: the name of the tokens'."""
        del head, table
        return {}


@dataclass(frozen=True, kw_only=True)
class Masked(Task):
    """A masked LM head: names of its tensors. activation None: that of the layers.

    transformers adds the bias beside the table. Where `bias` is another, the two are one only if the tables are tied,
    and a checkpoint with an untied table isn't read.
    """

    dense: str
    norm: str
    table: str
    bias: str
    activation: Activation | None = EXACT_GELU

    @property
    def beside(self) -> str:
        """The name of a bias beside the table."""
        return f"{self.table}.bias"

    def read(self, fields: Fields, body: Encoder) -> MaskedLM:
        tied = fields.only("tie_word_embeddings", True, *([False] if self.beside == self.bias else []))
        return MaskedLM(activation=self.activation or activation_of(body), norm=body.embed_norm, tied=tied)

    def write(self, head: Head) -> dict[str, Any] | None:
        return {"tie_word_embeddings": head.tied} if isinstance(head, MaskedLM) else None

    def rules(self, head: MaskedLM, body: Encoder) -> Iterator[Rule]:
        yield from linear("transform.dense", self.dense, bias=head.bias)
        yield from norm("transform.norm", self.norm, head.norm)
        yield Rule(("bias",), (self.bias,), Table(body.vocab))
        if not head.tied:
            yield Rule(("weight",), (f"{self.table}.weight",), Table(body.vocab))

    def copies(self, head: MaskedLM, table: str) -> dict[str, str]:
        weight = {f"{self.table}.weight": table} if head.tied else {}
        return weight | ({} if self.beside == self.bias else {self.beside: self.bias})


@dataclass(frozen=True, kw_only=True)
class Classes(Task):
    """A classifier: names of its tensors. dense: of the layer before the last map, whose activation is `activation`, or
    None: that of the layers. labels: how many, None: as the config says."""

    out: str
    pooling: Pooling | None = None
    dense: str | None = None
    activation: Activation | None = None
    labels: int | None = None

    def read(self, fields: Fields, body: Encoder) -> Classifier:
        fields.skip("tie_word_embeddings")
        inner = None if self.dense is None else self.activation or activation_of(body)
        return Classifier(labels=self.labels or labels(fields), pooling=self.pooling, inner=inner)

    def write(self, head: Head) -> dict[str, Any] | None:
        if not isinstance(head, Classifier) or head.pooling != self.pooling or (not head.inner) != (not self.dense):
            return None
        if self.labels is not None:
            return {} if head.labels == self.labels else None
        return {"num_labels": head.labels}

    def rules(self, head: Classifier, body: Encoder) -> Iterator[Rule]:
        if self.dense is not None:
            yield from linear("transform.dense", self.dense, bias=True)
        yield same("weight", f"{self.out}.weight")
        yield same("bias", f"{self.out}.bias")


def activation_of(body: Encoder) -> Any:
    """Of the layers."""
    return body.each()[0].ff.activation  # type: ignore[union-attr]


def labels(fields: Fields) -> int:
    """How many classes there are to choose from."""
    named, number = fields("id2label", {}), fields("num_labels", None)
    if named and number not in (None, len(named)):
        raise HubError(f"{fields.where}: num_labels={number}, but id2label names {len(named)}")
    return len(named) or number or 2


class EncoderFamily(Family):
    """Its architectures are `name` and "Model", the encoder alone, or `name`, "For" and a task.

    prefix: of the encoder's tensors where it has a head. table: the name of its token table, without it. tasks: the
    first that has a head is the one it is written as. read_as: tasks that are another one's model here.
    """

    name: ClassVar[str]
    prefix: ClassVar[str]
    table: ClassVar[str]
    tasks: ClassVar[dict[str, Task]]
    read_as: ClassVar[dict[str, str]] = {"QuestionAnswering": "TokenClassification"}

    @abc.abstractmethod
    def read_body(self, fields: Fields) -> Encoder: ...

    @abc.abstractmethod
    def write_body(self, body: Encoder) -> dict[str, Any]: ...

    @abc.abstractmethod
    def body_rules(self, body: Encoder) -> Iterator[Rule]: ...

    def read(self, fields: Fields) -> Model:
        body, task = self.read_body(fields), self._asked(fields)
        if task is None:
            fields.skip("tie_word_embeddings")
            return body
        return Headed(body=body, head=task.read(fields, body))

    def _asked(self, fields: Fields) -> Task | None:
        """The task that the file says; None: the encoder alone."""
        whole = fields.architecture
        name = whole.rpartition("For")[2]
        task = self.tasks.get(self.read_as.get(name, name))
        if task is None and whole and (not whole.endswith("Model") or whole.endswith("HeadModel")):
            known = ", ".join([*self.tasks, *self.read_as])
            raise HubError(
                f"{fields.where}: {whole} isn't supported, only {self.name}Model and {self.name}For: {known}"
            )
        return task

    def write(self, spec: Any) -> dict[str, Any]:
        body, head = (spec.body, spec.head) if isinstance(spec, Headed) else (spec, None)
        if not isinstance(body, Encoder):
            raise Unfit("it is no encoder")
        config = {"model_type": self.types[0]} | self.write_body(body)
        if head is None:
            return config | {"architectures": [f"{self.name}Model"]}
        name, fields = self._task(head)
        return config | {"architectures": [f"{self.name}For{name}"]} | fields

    def _task(self, head: Head) -> tuple[str, dict[str, Any]]:
        """The task of a head, and the fields that it has."""
        for name, task in self.tasks.items():
            fields = task.write(head)
            if fields is not None:
                return name, fields
        raise Unfit(f"transformers has no {self.name}For... with the head {head}")

    def rules(self, spec: Any) -> Iterable[Rule]:
        if not isinstance(spec, Headed):
            return list(self.body_rules(spec))
        body: Any = spec.body
        top = self.tasks[self._task(spec.head)[0]].rules(spec.head, body)
        return [r.within("body.", self.prefix) for r in self.body_rules(body)] + [r.within("top.", "") for r in top]

    def copies(self, spec: Any) -> Mapping[str, str]:
        if not isinstance(spec, Headed):
            return {}
        return self.tasks[self._task(spec.head)[0]].copies(spec.head, self.prefix + self.table)

    def renamed(self, spec: Any, name: str) -> str:
        """An encoder alone may have been saved from a model with a head."""
        return name if isinstance(spec, Headed) else name.removeprefix(self.prefix)
