"""T5 (Raffel et al. 2020), its v1.1 and FLAN, mT5 (Xue et al. 2021) and UMT5 (Chung et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from lm.config import replace
from lm.hub import activations
from lm.hub.errors import HubError
from lm.hub.family import Family, Rule, Unfit, layered, linear, norm, same
from lm.hub.fields import Fields
from lm.hub.files import Tensors
from lm.hub.forms import Alike, Table
from lm.models import Decoder, Encoder, EncoderDecoder, Model
from lm.models.stack import grouped
from lm.models.trunk import Trunk
from lm.nn.attention import Attention
from lm.nn.bias import T5Bias
from lm.nn.block import Block
from lm.nn.cross import Cross
from lm.nn.feedforward import MLP, FeedForward, GatedMLP
from lm.nn.mask import Mask
from lm.nn.norms import RMSNorm

SHARED, HEAD = "shared.weight", "lm_head.weight"
QKV = {"query": "q", "key": "k", "value": "v"}
BIAS = "SelfAttention.relative_attention_bias.weight"


class T5(Family):
    """Subclasses replace defaults as class variables, and the feed-forward layer.

    shared: one table of biases for all layers. A head of its own is told by its tensor, since transformers writes
    tie_word_embeddings=true either way; the scale of the logits goes by the config.
    """

    types = ("t5",)
    ignored = (".EncDecAttention.relative_attention_bias.weight",)  # nothing has ever read it
    names: ClassVar[str] = "T5"
    vocab: ClassVar[int] = 32128
    width: ClassVar[int] = 512
    hidden: ClassVar[int] = 2048
    depth: ClassVar[int] = 6
    heads: ClassVar[int] = 8
    projection: ClassVar[str] = "relu"
    shared: ClassVar[bool] = True

    def read(self, fields: Fields) -> Model:
        fields.only("is_decoder", False)
        fields.skip("n_positions", "scalable_attention")
        layers = fields("num_layers", self.depth)
        decoder_layers = fields("num_decoder_layers", layers)
        both = {
            "vocab": fields("vocab_size", self.vocab),
            "width": fields("d_model", self.width),
            "norm": RMSNorm(epsilon=fields("layer_norm_epsilon", 1e-6)),
        }
        encoder = Encoder(**both, **grouped([self.block(fields, i, False) for i in range(layers)]))
        tied, scale = fields("tie_word_embeddings", True), self.scale(fields)
        if fields.architecture == f"{self.names}EncoderModel":
            return encoder
        if fields.architecture not in ("", *(f"{self.names}{end}" for end in HEADS)):
            raise HubError(f"{fields.where}: {fields.architecture} isn't supported, only {self.names}{HEADS[0]}")
        decoder = grouped([self.block(fields, i, True) for i in range(decoder_layers)])
        return EncoderDecoder(encoder=encoder, decoder=Decoder(**both, **decoder, tied=tied, logit_scale=scale))

    def scale(self, fields: Fields) -> float:
        scaled = fields("scale_decoder_outputs", fields("tie_word_embeddings", True))
        return fields("d_model", self.width) ** -0.5 if scaled else 1.0

    def block(self, fields: Fields, i: int, decoder: bool) -> Block:
        """Of layer i."""
        attention = {**self.attention(fields), "scale": 1.0}
        position = T5Bias(
            buckets=fields("relative_attention_num_buckets", 32),
            max_distance=fields("relative_attention_max_distance", 128),
            bidirectional=not decoder,
            shared=self.shared,
        )
        cross = Attention(**attention, position=None, mask=Mask(causal=False))
        return Block(
            mixer=Attention(**attention, position=position, mask=Mask(causal=decoder)),
            ff=self.ff(fields, i, decoder),
            norm=RMSNorm(epsilon=fields("layer_norm_epsilon", 1e-6)),
            cross=Cross(attention=cross) if decoder else None,
        )

    def attention(self, fields: Fields) -> dict[str, Any]:
        heads, width = fields("num_heads", self.heads), fields("d_kv", 64)
        plain = width * heads == fields("d_model", self.width)
        return {"heads": heads, "kv_heads": heads, "head_width": None if plain else width}

    def ff(self, fields: Fields, i: int, decoder: bool) -> FeedForward:
        del i, decoder
        before, _, name = fields("feed_forward_proj", self.projection).rpartition("-")
        name = "gelu_new" if (before, name) == ("gated", "gelu") else name
        kind = GatedMLP if fields("is_gated_act", before == "gated") else MLP
        activation = activations.read(fields, "dense_act_fn", name)
        return kind(hidden=fields("d_ff", self.hidden), activation=activation)

    # ---- the way back ----

    def write(self, spec: Any) -> dict[str, Any]:
        encoder = spec.encoder if isinstance(spec, EncoderDecoder) else spec
        if not isinstance(encoder, Encoder):
            raise Unfit("it has no encoder")
        match encoder.each()[0]:
            case Block(mixer=Attention(position=T5Bias() as bias) as mixer, norm=RMSNorm(epsilon=epsilon)):
                pass
            case _:
                raise Unfit("it is no encoder of attention with T5's relative bias and RMSNorm")
        config = {
            "model_type": self.types[0],
            "architectures": [f"{self.names}EncoderModel"],
            "vocab_size": encoder.vocab,
            "d_model": encoder.width,
            "num_layers": encoder.layers,
            "num_heads": mixer.heads,
            "d_kv": mixer.width_of_head(encoder.width),
            "relative_attention_num_buckets": bias.buckets,
            "relative_attention_max_distance": bias.max_distance,
            "layer_norm_epsilon": epsilon,
            **self.write_ffs(spec),
        }
        return config | self.write_decoder(spec.decoder) if isinstance(spec, EncoderDecoder) else config

    def write_decoder(self, decoder: Decoder) -> dict[str, Any]:
        return {
            "architectures": [f"{self.names}{HEADS[0]}"],
            "num_decoder_layers": decoder.layers,
            "tie_word_embeddings": decoder.tied,
            "scale_decoder_outputs": decoder.logit_scale != 1,
        }

    def write_ffs(self, spec: Any) -> dict[str, Any]:
        ff = getattr(spec, "encoder", spec).each()[0].ff
        if not isinstance(ff, MLP | GatedMLP):
            raise Unfit("its feed-forward layers are neither plain nor gated")
        name = activations.write(ff.activation, "gelu_new")
        if not isinstance(ff, GatedMLP):
            return {"d_ff": ff.hidden, "feed_forward_proj": name}
        exact = "gelu_python" if name == "gelu" else name  # gated-gelu is the approximate one
        return {"d_ff": ff.hidden, "feed_forward_proj": f"gated-{exact}"}

    # ---- tensors ----

    def settled(self, spec: Any, tensors: Tensors) -> Model:
        if not isinstance(spec, EncoderDecoder):
            return spec
        both = {HEAD, SHARED} <= tensors.names()
        return replace(spec, {"decoder.tied": not (both and not np.array_equal(tensors[HEAD], tensors[SHARED]))})

    def copies(self, spec: Any) -> Mapping[str, str]:
        tables = {f"{side}.embed_tokens.weight": SHARED for side in ("encoder", "decoder")}
        tied = isinstance(spec, EncoderDecoder) and spec.decoder.tied
        return tables | {HEAD: SHARED} if tied else tables

    def rules(self, spec: Any) -> Iterable[Rule]:
        if isinstance(spec, Encoder):
            yield Rule(("embedding",), (SHARED,), Table(spec.vocab))
            yield from self.trunk(spec, "", "encoder.")
            return
        yield Rule(("decoder.embedding",), (SHARED,), Table(spec.vocab))
        if not spec.decoder.tied:
            yield Rule(("decoder.unembedding",), (HEAD,), Table(spec.vocab))
        yield from self.trunk(spec.encoder, "encoder.", "encoder.")
        yield from self.trunk(spec.decoder, "decoder.", "decoder.")

    def trunk(self, spec: Trunk, ours: str, theirs: str) -> Iterator[Rule]:
        """All of one side but its tokens."""
        yield from norm(f"{ours}norm", f"{theirs}final_layer_norm", spec.norm)
        yield from layered(spec, f"{theirs}block.{{}}.", self.layer, ours)
        if self.shared:
            tables = tuple(f"{ours}blocks.{stack}.mixer.position.table" for stack in spec.stacks())
            yield Rule(tables, (f"{theirs}block.0.layer.0.{BIAS}",), Alike(), 0)

    def layer(self, block: Block) -> Iterator[Rule]:
        for number, part in enumerate(block.parts):
            yield from norm(f"norms.{part}", f"layer.{number}.layer_norm", block.norm)
        yield from attention("mixer", "layer.0.SelfAttention")
        if not self.shared:
            yield same("mixer.position.table", f"layer.0.{BIAS}")
        if block.cross is not None:
            yield from attention("cross", "layer.1.EncDecAttention")
        for rule in self.ff_rules(block.ff):
            yield rule.within("ff.", f"layer.{len(block.parts) - 1}.")

    def ff_rules(self, ff: Any) -> Iterator[Rule]:
        names = {"gate": "wi_0", "up": "wi_1"} if isinstance(ff, GatedMLP) else {"up": "wi"}
        for ours, theirs in {**names, "down": "wo"}.items():
            yield from linear(ours, f"DenseReluDense.{theirs}")


HEADS = ("ForConditionalGeneration", "WithLMHeadModel", "Model")  # the same tensors


def attention(ours: str, theirs: str) -> Iterator[Rule]:
    for mine, other in QKV.items():
        yield from linear(f"{ours}.{mine}", f"{theirs}.{other}")
    yield from linear(f"{ours}.out", f"{theirs}.o", inputs=2)


class MT5(T5):
    """T5 v1.1 without a scale of the logits, whatever its config says."""

    types = ("mt5",)
    names = "MT5"
    vocab, hidden, depth, heads = 250112, 1024, 8, 6
    projection = "gated-gelu"

    def scale(self, fields: Fields) -> float:
        fields.skip("scale_decoder_outputs")
        return 1.0


class UMT5(T5):
    """A table of biases in every layer."""

    types = ("umt5",)
    names = "UMT5"
    vocab, hidden, depth, heads = 250112, 1024, 8, 6
    projection = "gated-gelu"
    shared = False
