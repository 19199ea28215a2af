"""GPT (Radford et al. 2018) and GPT-2 (Radford et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from lm.hub import activations
from lm.hub.family import Family, Rule, Unfit, flat, layered, norm, same, under
from lm.hub.fields import Fields
from lm.hub.forms import Dense, Flat, Joined, Table, Transposed
from lm.models.decoder import Decoder
from lm.nn.attention import Attention
from lm.nn.block import Block, PostNorm
from lm.nn.feedforward import GELU, MLP, Activation, ReLU, SiLU
from lm.nn.norms import LayerNorm
from lm.nn.positions import Learned

QKV = ("mixer.query", "mixer.key", "mixer.value")
UNREAD = ("n_ctx", "n_special", "predict_special_tokens")  # in the first files; transformers doesn't look at them


class GPT2(Family):
    types = ("gpt2",)
    ignored = (".attn.bias", ".attn.masked_bias")
    architecture: ClassVar[str] = "GPT2LMHeadModel"
    tables: ClassVar[tuple[str, str]] = ("transformer.wte", "transformer.wpe")  # of tokens, of positions

    def read(self, fields: Fields) -> Decoder:
        fields.only("scale_attn_weights", True)
        fields.only("scale_attn_by_inverse_layer_idx", False)
        fields.only("add_cross_attention", False)
        fields.skip("reorder_and_upcast_attn", *UNREAD)
        width, heads, norm = (
            fields("n_embd", 768),
            fields("n_head", 12),
            LayerNorm(epsilon=fields("layer_norm_epsilon", 1e-5)),
        )
        hidden, activation = fields("n_inner", 4 * width), activations.read(fields, "activation_function", "gelu_new")
        return Decoder(
            vocab=fields("vocab_size", 50257),
            width=width,
            layers=fields("n_layer", 12),
            block=Block(
                mixer=Attention(heads=heads, kv_heads=heads, position=None, bias=True, output_bias=True),
                ff=MLP(hidden=hidden, activation=activation, bias=True),
                norm=norm,
            ),
            position=Learned(length=fields("n_positions", 1024)),
            norm=norm,
            tied=fields("tie_word_embeddings", True),
        )

    def write(self, spec: Any) -> dict[str, Any]:
        match spec:
            case Decoder(
                block=Block(mixer=Attention(heads=heads), ff=MLP() as ff, norm=LayerNorm(epsilon=epsilon)),
                position=Learned(length=length),
            ):
                return {
                    "model_type": self.types[0],
                    "architectures": [self.architecture],
                    "vocab_size": spec.vocab,
                    "n_embd": spec.width,
                    "n_layer": spec.layers,
                    "n_head": heads,
                    "n_inner": ff.hidden,
                    "n_positions": length,
                    "layer_norm_epsilon": epsilon,
                    "activation_function": activations.write(ff.activation, "gelu_new"),
                    "tie_word_embeddings": spec.tied,
                }
        raise Unfit("it is no decoder of attention and plain feed-forward layers with learned positions")

    def renamed(self, spec: Decoder, name: str) -> str:
        """The first checkpoints lack the prefix."""
        del spec
        return under("transformer.", name, "lm_head.")

    def copies(self, spec: Decoder) -> dict[str, str]:
        return {"lm_head.weight": f"{self.tables[0]}.weight"} if spec.tied else {}

    def rules(self, spec: Decoder) -> Iterable[Rule]:
        yield Rule(("embedding",), (f"{self.tables[0]}.weight",), Table(spec.vocab))
        yield same("position.table", f"{self.tables[1]}.weight")
        yield from norm("norm", "transformer.ln_f", spec.norm)
        if not spec.tied:
            yield Rule(("unembedding",), ("lm_head.weight",), Table(spec.vocab))
        yield from layered(spec, "transformer.h.{}.", self.layer)

    def layer(self, block: Block) -> Iterator[Rule]:
        fused = tuple(f"{name}.weight" for name in QKV), tuple(f"{name}.bias" for name in QKV)
        yield Rule(fused[0], ("attn.c_attn.weight",), Transposed(Joined(Dense())))
        yield Rule(fused[1], ("attn.c_attn.bias",), Joined(Flat()))
        yield Rule(("mixer.out.weight",), ("attn.c_proj.weight",), Transposed(Dense(2)))
        yield flat("mixer.out.bias", "attn.c_proj.bias")
        for ours, theirs in {"ff.up": "mlp.c_fc", "ff.down": "mlp.c_proj"}.items():
            yield Rule((f"{ours}.weight",), (f"{theirs}.weight",), Transposed(Dense()))
            yield flat(f"{ours}.bias", f"{theirs}.bias")
        yield from norm("norms.mixer", "ln_1", block.norm)
        yield from norm("norms.ff", "ln_2", block.norm)


ACTIVATIONS: dict[str, Activation] = {"gelu": GELU(approximate=True), "relu": ReLU(), "swish": SiLU(), "silu": SiLU()}


class GPT1(GPT2):
    """Norms after each part and none at the end; "gelu" is its tanh form there."""

    types = ("openai-gpt",)
    architecture = "OpenAIGPTLMHeadModel"
    tables = ("transformer.tokens_embed", "transformer.positions_embed")

    def read(self, fields: Fields) -> Decoder:
        width, heads = fields("n_embd", 768), fields("n_head", 12)
        fields.skip(*UNREAD)
        name = fields.only("afn", *ACTIVATIONS)
        return Decoder(
            vocab=fields("vocab_size", 40478),
            width=width,
            layers=fields("n_layer", 12),
            block=Block(
                mixer=Attention(heads=heads, kv_heads=heads, position=None, bias=True, output_bias=True),
                ff=MLP(hidden=4 * width, activation=ACTIVATIONS[name], bias=True),
                norm=LayerNorm(epsilon=fields("layer_norm_epsilon", 1e-5)),
                residual=PostNorm(),
            ),
            position=Learned(length=fields("n_positions", 512)),
            norm=None,
            tied=fields("tie_word_embeddings", True),
        )

    def write(self, spec: Any) -> dict[str, Any]:
        found = super().write(spec)
        names = [name for name, activation in ACTIVATIONS.items() if activation == spec.block.ff.activation]
        if not names:
            raise Unfit(f"GPT has no name for {spec.block.ff.activation}")
        return {name: found[name] for name in found if name not in ("n_inner", "activation_function")} | {
            "afn": names[0]
        }
