"""The encoder-decoder: an encoder reads the source, a decoder writes the target and reads what the encoder found."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx

from lm.config import ConfigError, config
from lm.models import stack
from lm.models.decoder import Decoder
from lm.models.encoder import Encoder
from lm.models.execution import Execution
from lm.models.model import Around, Cache, Hidden
from lm.nn.block import BlockLayer
from lm.nn.cost import Cost
from lm.nn.cross import Context
from lm.nn.mask import positions_of
from lm.shapes import Array, Float, Int
from lm.sharding import Layout


@config
class EncoderDecoder(Around):
    """Vaswani et al. 2017; T5, BART, Marian. The decoder's blocks have a `cross`; the output layer is the decoder's.

    shared: both read tokens from one table, the encoder's (Raffel et al. 2020); it needs the same vocabulary, width
    and initial spread.
    """

    encoder: Encoder
    decoder: Decoder
    shared: bool = True

    def __post_init__(self) -> None:
        a, b = self.encoder, self.decoder
        if a.width != b.width:
            raise ConfigError(f"the decoder reads the encoder's output: widths {a.width} and {b.width} must be equal")
        if not any(block.cross for block, _ in b.stacks().values()):
            raise ConfigError("no block of the decoder reads the encoder; give them cross=cross_attention(heads)")
        if any(block.cross for block, _ in a.stacks().values()):
            raise ConfigError("a block of the encoder has cross-attention, and there is nothing for it to read")
        if self.shared and (a.rows, a.table_width, a.embed_std) != (b.rows, b.table_width, b.embed_std):
            raise ConfigError("shared=True is one table: encoder and decoder need the same vocab, width and embed_std")

    @property
    def part(self) -> Decoder:
        return self.decoder

    def build(self, *, rngs: nnx.Rngs) -> EncoderDecoderModel:
        return EncoderDecoderModel(self, rngs=rngs)

    def cost(self, length: int, decoder_length: int | None = None) -> Cost:
        """Of a source of `length` tokens and a target of `decoder_length`, None: as many."""
        both = self.encoder.cost(length) + self.decoder.cost(decoder_length or length, context=length)
        twice = self.decoder.rows * self.width if self.shared else 0
        return both + Cost(params=-twice, embedding=-twice, active=-twice)

    def check_split(self, where: Layout) -> None:
        self.encoder.check_split(where)
        self.decoder.check_split(where)

    def check_context(self, length: int) -> None:
        self.encoder.check_context(length)
        self.decoder.check_context(length)


class EncoderDecoderModel(nnx.Module):
    """`model(tokens [B S], decoder_tokens [B L]) -> logits [B L V]`."""

    def __init__(self, spec: EncoderDecoder, *, rngs: nnx.Rngs):
        self.spec = spec
        self.encoder = spec.encoder.build(rngs=rngs)
        self.decoder = spec.decoder.build(rngs=rngs)
        if spec.shared:
            self.decoder.embedding = self.encoder.embedding

    def __call__(
        self,
        tokens: Int[Array, "B S"],
        decoder_tokens: Int[Array, "B L"],
        segments: Int[Array, "B S"] | None = None,
        decoder_segments: Int[Array, "B L"] | None = None,
        execution: Execution | None = None,
    ) -> Float[Array, "B L V"]:
        """Logits in float32. Target tokens of segment d read source tokens of segment d."""
        context = self.encode(tokens, None, segments, execution)
        found = self.hidden(decoder_tokens, None, decoder_segments, None, execution, context=context)
        return self.decoder.logits(found.h)

    def encode(
        self,
        tokens: Int[Array, "B S"],
        positions: Int[Array, "B S"] | None = None,
        segments: Int[Array, "B S"] | None = None,
        execution: Execution | None = None,
    ) -> Context:
        """What the decoder reads."""
        segments = jnp.ones_like(tokens) if segments is None else segments
        positions = positions_of(segments) if positions is None else positions
        return Context(self.encoder.hidden(tokens, positions, segments, None, execution).h, positions, segments)

    def hidden(
        self,
        tokens: Int[Array, "B L"],
        positions: Int[Array, "B L"] | None = None,
        segments: Int[Array, "B L"] | None = None,
        cache: Cache | None = None,
        execution: Execution | None = None,
        *,
        layers: list[BlockLayer] | None = None,
        context: stack.Reads = None,
    ) -> Hidden:
        """The decoder's side, as a decoder's own."""
        return self.decoder.hidden(tokens, positions, segments, cache, execution, layers=layers, context=context)

    def head(self) -> Float[Array, "rows D"]:
        return self.decoder.head()

    def head_bias(self) -> Float[Array, " rows"] | None:
        return self.decoder.head_bias()

    def logits(self, h: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
        return self.decoder.logits(h)
