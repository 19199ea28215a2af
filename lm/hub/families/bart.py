"""BART (Lewis et al. 2020), mBART (Liu et al. 2020), Pegasus (Zhang et al. 2020), and Marian (Junczys-Dowmunt et al.
2018), whose models are the Transformer of Vaswani et al. 2017."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from lm.hub import activations
from lm.hub.errors import HubError
from lm.hub.family import Family, Rule, Unfit, layered, linear, norm
from lm.hub.fields import Fields
from lm.hub.forms import After, Row, Table
from lm.models import Decoder, Encoder, EncoderDecoder
from lm.models.trunk import Trunk
from lm.nn.attention import Attention
from lm.nn.block import Block, PostNorm, PreNorm, Residual
from lm.nn.cross import Cross
from lm.nn.feedforward import MLP
from lm.nn.mask import Mask
from lm.nn.norms import LayerNorm
from lm.nn.positions import AbsolutePosition, Learned, Sinusoidal

OFFSET = 2  # rows of the position table before the first position
NORM = LayerNorm(epsilon=1e-5)
ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
PARTS = {"mixer": "self_attn", "cross": "encoder_attn"}
NORMS = {"mixer": "self_attn_layer_norm", "cross": "encoder_attn_layer_norm", "ff": "final_layer_norm"}


class Bart(Family):
    """Subclasses say where their norms stand and which positions they have.

    A checkpoint of BartModel, the hub's for pretrained ones, has other names, and no bias of the logits.
    """

    types = ("bart",)
    ignored = ("encoder.version", "decoder.version")
    names: ClassVar[str] = "Bart"
    head: ClassVar[str] = "ForConditionalGeneration"
    vocab: ClassVar[int] = 50265
    residual: ClassVar[Residual] = PostNorm()
    embed_norm: ClassVar[LayerNorm | None] = NORM
    norm: ClassVar[LayerNorm | None] = None

    def read(self, fields: Fields) -> EncoderDecoder:
        for name, value in self.agreed().items():
            fields.only(name, value)
        fields.skip("init_std", "encoder_layerdrop", "decoder_layerdrop", "num_hidden_layers")
        fields.skip("force_bos_token_to_be_generated")
        if fields.architecture not in ("", self.names + "Model", self.names + self.head):
            raise HubError(f"{fields.where}: {fields.architecture} isn't supported, only {self.names}{self.head}")
        encoder, decoder, shared = self.tables(fields)
        tied = fields("tie_word_embeddings", True)
        if shared and not tied:
            raise HubError(f"{fields.where}: tie_word_embeddings=False isn't supported where both sides share a table")
        return EncoderDecoder(
            encoder=Encoder(vocab=encoder, **self.trunk(fields, "encoder")),
            decoder=Decoder(
                vocab=decoder,
                **self.trunk(fields, "decoder"),
                tied=tied,
                head_bias=fields.architecture != self.names + "Model",
            ),
            shared=shared,
        )

    def agreed(self) -> dict[str, Any]:
        """What older files say, and all models of the family agree on."""
        return {
            "is_decoder": False,
            "normalize_before": isinstance(self.residual, PreNorm),
            "normalize_embedding": self.embed_norm is not None,
            "add_final_layer_norm": self.norm is not None,
            "add_bias_logits": False,
            "static_position_embeddings": False,
            "extra_pos_embeddings": OFFSET,
        }

    def tables(self, fields: Fields) -> tuple[int, int, bool]:
        """Tokens of the encoder and of the decoder, and whether they share a table."""
        vocab = fields("vocab_size", self.vocab)
        return vocab, vocab, True

    def position(self, fields: Fields) -> AbsolutePosition:
        return Learned(length=fields("max_position_embeddings", 1024))

    def trunk(self, fields: Fields, side: str) -> dict[str, Any]:
        heads = fields(f"{side}_attention_heads", 16)
        attention = {"heads": heads, "kv_heads": heads, "position": None, "bias": True, "output_bias": True}
        reader = side == "decoder"
        return {
            "width": fields("d_model", 1024),
            "layers": fields(f"{side}_layers", 12),
            "position": self.position(fields),
            "embed_norm": self.embed_norm,
            "norm": self.norm,
            "embed_scale": None if fields("scale_embedding", False) else 1.0,
            "block": Block(
                mixer=Attention(**attention, mask=Mask(causal=reader)),
                ff=MLP(
                    hidden=fields(f"{side}_ffn_dim", 4096),
                    activation=activations.read(fields, "activation_function", "gelu"),
                    bias=True,
                ),
                norm=NORM,
                residual=self.residual,
                cross=Cross(attention=Attention(**attention, mask=Mask(causal=False))) if reader else None,
            ),
        }

    # ---- the way back ----

    def write(self, spec: Any) -> dict[str, Any]:
        if not isinstance(spec, EncoderDecoder):
            raise Unfit("it is no encoder-decoder")
        if not (spec.decoder.tied or spec.decoder.head_bias):
            raise Unfit("its head has weights of its own and no bias; give it head_bias=True")
        config = {
            "model_type": self.types[0],
            "architectures": [self.names + (self.head if spec.decoder.head_bias else "Model")],
            "vocab_size": spec.encoder.vocab,
            "d_model": spec.width,
            "scale_embedding": spec.encoder.embed_scale is None,
            "tie_word_embeddings": spec.decoder.tied,
            **self.write_positions(spec),
        }
        for side, trunk in {"encoder": spec.encoder, "decoder": spec.decoder}.items():
            match trunk.each()[0]:
                case Block(mixer=Attention(heads=heads), ff=MLP(hidden=hidden, activation=activation)):
                    config |= {
                        f"{side}_layers": trunk.layers,
                        f"{side}_attention_heads": heads,
                        f"{side}_ffn_dim": hidden,
                        "activation_function": activations.write(activation),
                    }
                case _:
                    raise Unfit(f"the {side}'s layers aren't attention and a plain feed-forward layer")
        return config

    def write_positions(self, spec: EncoderDecoder) -> dict[str, Any]:
        if not isinstance(spec.encoder.position, Learned):
            raise Unfit("its positions aren't learned")
        return {"max_position_embeddings": spec.encoder.position.length}

    # ---- tensors ----

    def prefix(self, spec: EncoderDecoder) -> str:
        return "model." if spec.decoder.head_bias else ""

    def copies(self, spec: EncoderDecoder) -> Mapping[str, str]:
        prefix = self.prefix(spec)
        tables = {f"{prefix}{side}.embed_tokens.weight" for side in ("encoder", "decoder")} if spec.shared else set()
        head = {"lm_head.weight"} if spec.decoder.tied else set()
        return dict.fromkeys(tables | head, self.table(spec, "decoder"))

    def table(self, spec: EncoderDecoder, side: str) -> str:
        """Where a side's token table is."""
        return self.prefix(spec) + ("shared.weight" if spec.shared else f"{side}.embed_tokens.weight")

    def rules(self, spec: EncoderDecoder) -> Iterable[Rule]:
        decoder, prefix = spec.decoder, self.prefix(spec)
        yield Rule(("decoder.embedding",), (self.table(spec, "decoder"),), Table(decoder.vocab))
        if not spec.shared:
            yield Rule(("encoder.embedding",), (self.table(spec, "encoder"),), Table(spec.encoder.vocab))
        if not decoder.tied:
            yield Rule(("decoder.unembedding",), ("lm_head.weight",), Table(decoder.vocab))
        if decoder.head_bias:
            yield Rule(("decoder.bias",), ("final_logits_bias",), Row(Table(decoder.vocab)))
        for side, trunk in {"encoder.": spec.encoder, "decoder.": decoder}.items():
            yield from self.trunk_rules(trunk, side, prefix + side)

    def trunk_rules(self, spec: Trunk, ours: str, theirs: str) -> Iterator[Rule]:
        """All of one side but its tokens."""
        if isinstance(spec.position, Learned):
            yield Rule((f"{ours}position.table",), (f"{theirs}embed_positions.weight",), After(OFFSET))
        yield from norm(f"{ours}embed_norm", f"{theirs}layernorm_embedding", spec.embed_norm)
        yield from norm(f"{ours}norm", f"{theirs}layer_norm", spec.norm)
        yield from layered(spec, f"{theirs}layers.{{}}.", self.layer, ours)

    def layer(self, block: Block) -> Iterator[Rule]:
        for part in block.parts:
            yield from norm(f"norms.{part}", NORMS[part], block.norm)
            if part in PARTS:
                for ours, theirs in ATTENTION.items():
                    yield from linear(f"{part}.{ours}", f"{PARTS[part]}.{theirs}", bias=True)
                yield from linear(f"{part}.out", f"{PARTS[part]}.out_proj", bias=True, inputs=2)
        for ours, theirs in {"up": "fc1", "down": "fc2"}.items():
            yield from linear(f"ff.{ours}", theirs, bias=True)


class MBart(Bart):
    """Norms before the parts, and one more at the end of each side."""

    types = ("mbart",)
    names = "MBart"
    residual = PreNorm()
    norm = NORM


class Fixed(Bart):
    """Positions are sines and cosines; older checkpoints hold them."""

    ignored = (*Bart.ignored, ".embed_positions.weight")

    def agreed(self) -> dict[str, Any]:
        said = super().agreed()
        del said["extra_pos_embeddings"]
        return {**said, "static_position_embeddings": True}

    def position(self, fields: Fields) -> AbsolutePosition:
        fields.skip("max_position_embeddings", "extra_pos_embeddings")
        return Sinusoidal()

    def write_positions(self, spec: EncoderDecoder) -> dict[str, Any]:
        return {}


class Pegasus(Fixed):
    types = ("pegasus",)
    names = "Pegasus"
    residual = PreNorm()
    embed_norm = None
    norm = NORM


class Marian(Fixed):
    types = ("marian",)
    names, head = "Marian", "MTModel"
    vocab = 58101
    embed_norm = None

    def tables(self, fields: Fields) -> tuple[int, int, bool]:
        vocab, shared = fields("vocab_size", self.vocab), fields("share_encoder_decoder_embeddings", True)
        decoder = fields("decoder_vocab_size", vocab)
        return vocab, vocab if shared else decoder, shared

    def write(self, spec: Any) -> dict[str, Any]:
        config = super().write(spec)
        return config | {"decoder_vocab_size": spec.decoder.vocab, "share_encoder_decoder_embeddings": spec.shared}
