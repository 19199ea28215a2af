"""Llama 1, 2 and 3 (Touvron et al. 2023; Dubey et al. 2024), and what all families of its shape have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from lm.hub import activations, rope
from lm.hub.family import Family, Rule, Unfit, layered, linear, norm
from lm.hub.fields import Fields
from lm.hub.forms import Table
from lm.models.decoder import Decoder
from lm.models.stack import grouped
from lm.nn.attention import Attention
from lm.nn.block import Block, PreNorm, Residual
from lm.nn.feedforward import FeedForward, GatedMLP
from lm.nn.mask import Mask
from lm.nn.norms import Norm, RMSNorm
from lm.nn.rope import RoPE

SLIDING, FULL = "sliding_attention", "full_attention"
# in released files, and transformers looks at none of them; what would be another model were they true is NEVER
UNREAD = ("pretraining_tp", "max_sequence_length", "is_llama_config")
NEVER = ("rope_interleaved", "use_mrope", "lm_head_bias")


class Llama(Family):
    """Subclasses replace what differs: defaults as class variables, parts as methods.

    `read` asks for each layer's parts by its number i and groups equal layers. norms: our names of a block's to theirs.
    """

    types = ("llama",)
    ignored = (".rotary_emb.inv_freq",)
    architecture: ClassVar[str] = "LlamaForCausalLM"
    vocab: ClassVar[int] = 32000
    width: ClassVar[int] = 4096
    depth: ClassVar[int] = 32
    hidden: ClassVar[int] = 11008
    epsilon: ClassVar[float] = 1e-6
    tied: ClassVar[bool] = False
    head: ClassVar[int | None] = None  # its width where the file says nothing; None: width / heads
    ff_biases: ClassVar[bool] = True  # whether its config has a field for them
    norms: ClassVar[dict[str, str]] = {"mixer": "input_layernorm", "ff": "post_attention_layernorm"}

    def read(self, fields: Fields) -> Decoder:
        fields.skip("max_position_embeddings", *UNREAD)
        for name in NEVER:
            fields.only(name, False)
        norm, residual = self.norm(fields), self.residual(fields)
        layers = range(fields("num_hidden_layers", self.depth))
        blocks = [
            Block(mixer=self.mixer(fields, i), ff=self.ff(fields, i), norm=norm, residual=residual) for i in layers
        ]
        return Decoder(
            vocab=fields("vocab_size", self.vocab),
            width=fields("hidden_size", self.width),
            norm=norm,
            tied=fields("tie_word_embeddings", self.tied),
            **grouped(blocks),
            **self.trunk(fields),
        )

    def norm(self, fields: Fields) -> Norm:
        return RMSNorm(epsilon=fields("rms_norm_eps", self.epsilon))

    def residual(self, fields: Fields) -> Residual:
        del fields
        return PreNorm()

    def trunk(self, fields: Fields) -> dict[str, Any]:
        """Other fields of the decoder."""
        del fields
        return {}

    def mixer(self, fields: Fields, i: int) -> Any:
        heads, kv_heads = self.heads(fields)
        return Attention(
            heads=heads,
            kv_heads=kv_heads,
            head_width=self.head_width(fields, heads),
            position=self.position(fields, i),
            mask=Mask(window=self.window(fields, i)),
            **self.biases(fields),
            **self.attention(fields),
        )

    def heads(self, fields: Fields) -> tuple[int, int]:
        heads = fields("num_attention_heads", 32)
        return heads, fields("num_key_value_heads", heads)

    def head_width(self, fields: Fields, heads: int) -> int | None:
        """`head_dim` where it isn't width / heads."""
        plain = fields("hidden_size", self.width) / heads
        width = fields("head_dim", self.head or plain)
        return None if width == plain else width

    def position(self, fields: Fields, i: int) -> RoPE:
        del i
        return rope.read(fields)

    def window(self, fields: Fields, i: int) -> int | None:
        del fields, i
        return None

    def biases(self, fields: Fields) -> dict[str, bool]:
        bias = fields("attention_bias", False)
        return {"bias": bias, "output_bias": bias}

    def attention(self, fields: Fields) -> dict[str, Any]:
        """Other fields of attention."""
        del fields
        return {}

    def ff(self, fields: Fields, i: int) -> FeedForward:
        del i
        activation = activations.read(fields, "hidden_act", "silu")
        bias = fields("mlp_bias", False) if self.ff_biases else fields.only("mlp_bias", False)
        return GatedMLP(hidden=fields("intermediate_size", self.hidden), activation=activation, bias=bias)

    # ---- the way back ----

    def write(self, spec: Any) -> dict[str, Any]:
        if not isinstance(spec, Decoder):
            raise Unfit("it is no decoder")
        mixers, ffs = [block.mixer for block in spec.each()], [block.ff for block in spec.each()]
        if not (isinstance(spec.norm, RMSNorm) and all(self.is_mixer(mixer) for mixer in mixers) and all(ffs)):
            raise Unfit("it is no decoder of attention with RoPE, feed-forward layers and RMSNorm")
        return {
            "model_type": self.types[0],
            "architectures": [self.architecture],
            "vocab_size": spec.vocab,
            "hidden_size": spec.width,
            "num_hidden_layers": spec.layers,
            "rms_norm_eps": spec.norm.epsilon,
            "tie_word_embeddings": spec.tied,
            **self.write_mixers(spec, mixers),
            **self.write_ffs(ffs),
        }

    def is_mixer(self, mixer: Any) -> bool:
        return isinstance(mixer, Attention) and isinstance(mixer.position, RoPE)

    def write_mixers(self, spec: Decoder, mixers: list[Any]) -> dict[str, Any]:
        one = mixers[0]
        return {
            "num_attention_heads": one.heads,
            "num_key_value_heads": one.kv_heads,
            "head_dim": one.width_of_head(spec.width),
            "attention_bias": one.bias,
            "rope_parameters": rope.write(one.position),
            **rope.write_length(one.position),
        }

    def write_ffs(self, ffs: list[Any]) -> dict[str, Any]:
        ff = next((ff for ff in ffs if isinstance(ff, GatedMLP)), None)
        if ff is None:
            raise Unfit("no layer has a gated feed-forward part")
        return {
            "intermediate_size": ff.hidden,
            "hidden_act": activations.write(ff.activation, "silu"),
            **({"mlp_bias": ff.bias} if self.ff_biases else {}),
        }

    # ---- tensors ----

    def copies(self, spec: Decoder) -> dict[str, str]:
        return {"lm_head.weight": "model.embed_tokens.weight"} if spec.tied else {}

    def rules(self, spec: Decoder) -> Iterable[Rule]:
        yield Rule(("embedding",), ("model.embed_tokens.weight",), Table(spec.vocab))
        yield from norm("norm", "model.norm", spec.norm)
        if not spec.tied:
            yield Rule(("unembedding",), ("lm_head.weight",), Table(spec.vocab))
        yield from layered(spec, "model.layers.{}.", lambda block: self.layer(spec, block))

    def layer(self, spec: Decoder, block: Block) -> Iterator[Rule]:
        yield from self.mixer_rules(spec, block.mixer)
        yield from self.ff_rules(block.ff)
        for name in block.residual.norms(block.parts):
            yield from norm(f"norms.{name}", self.norms[name], block.norm)

    def mixer_rules(self, spec: Decoder, mixer: Any) -> Iterator[Rule]:
        del spec
        for ours, theirs in {"query": "q_proj", "key": "k_proj", "value": "v_proj"}.items():
            yield from linear(f"mixer.{ours}", f"self_attn.{theirs}", bias=mixer.bias)
        yield from linear("mixer.out", "self_attn.o_proj", bias=mixer.output_bias, inputs=2)
        yield from self.qk_norm_rules(mixer)

    def qk_norm_rules(self, mixer: Any) -> Iterator[Rule]:
        yield from norm("mixer.query_norm", "self_attn.q_norm", mixer.qk_norm)
        yield from norm("mixer.key_norm", "self_attn.k_norm", mixer.qk_norm)

    def ff_rules(self, ff: Any) -> Iterator[Rule]:
        yield from gated("ff", "mlp", ff)


def gated(ours: str, theirs: str, ff: GatedMLP) -> Iterator[Rule]:
    """A gated feed-forward layer of three linear ones."""
    for part in ("gate", "up", "down"):
        yield from linear(f"{ours}.{part}", f"{theirs}.{part}_proj", bias=ff.bias)


def layer_types(fields: Fields, otherwise: list[str]) -> list[str]:
    """The kind of attention in each layer, as the file says or else as the family does."""
    return fields("layer_types", otherwise)


def write_windows(mixers: list[Any]) -> dict[str, Any]:
    """`layer_types` and `sliding_window` of layers of which some have a window, the same for all of those."""
    windows = [mixer.mask.window for mixer in mixers]
    return {
        "layer_types": [FULL if window is None else SLIDING for window in windows],
        "sliding_window": next((window for window in windows if window is not None), None),
    }
