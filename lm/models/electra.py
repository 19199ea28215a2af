"""A small model that fills masks, and a larger one that finds what it filled in wrongly."""

from __future__ import annotations

from flax import nnx

from lm.config import ConfigError, config
from lm.models.encoder import Encoder
from lm.models.headed import Headed
from lm.models.heads import Classifier, MaskedLM
from lm.models.model import Model
from lm.nn.cost import Cost
from lm.sharding import Layout


@config
class Electra(Model):
    """Generator and discriminator (Clark et al. 2020). What is wanted afterwards is the discriminator's body.

    shared: both read tokens from one table, the generator's (3.2); it needs the same rows and table width, and a
    narrower generator an `embed_width` for that. Other tables aren't shared.
    """

    generator: Headed
    discriminator: Headed
    shared: bool = True

    def __post_init__(self) -> None:
        a, b = self.generator.body, self.discriminator.body
        if not isinstance(a, Encoder) or not isinstance(b, Encoder):
            raise ConfigError("generator and discriminator read both sides of a token: give them an Encoder as body")
        if not isinstance(self.generator.head, MaskedLM):
            raise ConfigError("the generator says tokens: give it head=MaskedLM()")
        head = self.discriminator.head
        if not isinstance(head, Classifier) or head.labels != 1 or head.pooling is not None:
            raise ConfigError("the discriminator says one number for each token: give it head=token_classifier(1)")
        if a.vocab != b.vocab:
            raise ConfigError(f"both read the same tokens: vocab={a.vocab} and vocab={b.vocab} must be equal")
        if self.shared and (a.rows, a.table_width, a.embed_std) != (b.rows, b.table_width, b.embed_std):
            raise ConfigError("shared=True is one table: both need the same rows, table width and embed_std")

    @property
    def vocab(self) -> int:  # type: ignore[override]
        return self.generator.vocab

    @property
    def width(self) -> int:  # type: ignore[override]
        return self.discriminator.width

    def build(self, *, rngs: nnx.Rngs) -> ElectraModel:
        return ElectraModel(self, rngs=rngs)

    def cost(self, length: int) -> Cost:
        both = self.generator.cost(length) + self.discriminator.cost(length)
        body = self.generator.body
        twice = body.rows * body.table_width if self.shared else 0
        return both + Cost(params=-twice, embedding=-twice, active=-twice)

    def check_split(self, where: Layout) -> None:
        self.generator.check_split(where)
        self.discriminator.check_split(where)

    def check_context(self, length: int) -> None:
        self.generator.check_context(length)
        self.discriminator.check_context(length)


class ElectraModel(nnx.Module):
    """`generator` and `discriminator`, the models of their specs."""

    def __init__(self, spec: Electra, *, rngs: nnx.Rngs):
        self.spec = spec
        self.generator = spec.generator.build(rngs=rngs)
        self.discriminator = spec.discriminator.build(rngs=rngs)
        if spec.shared:
            self.discriminator.body.embedding = self.generator.body.embedding
