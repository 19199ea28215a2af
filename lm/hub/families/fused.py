"""Families that keep queries, keys and values in one tensor: GPT-NeoX, Falcon, Bloom, MPT."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lm.hub import activations, rope
from lm.hub.family import Family, Rule, Unfit, layered, linear, norm, under
from lm.hub.fields import Fields
from lm.hub.forms import ByHead, Dense, Flat, Form, Joined, Table
from lm.models.decoder import Decoder
from lm.nn.attention import Attention
from lm.nn.bias import ALiBi
from lm.nn.block import Block, Parallel, PreNorm, SharedParallel
from lm.nn.feedforward import GELU, MLP
from lm.nn.norms import LayerNorm
from lm.nn.rope import RoPE

QKV = ("mixer.query", "mixer.key", "mixer.value")


class Fused(Family):
    """What they share: a decoder of attention and plain feed-forward layers with LayerNorm.

    names: our modules of a layer to theirs, `qkv` for the joined one; top: embedding, embed_norm, norm, head, layers.
    """

    architecture: str
    names: dict[str, str]
    top: dict[str, str]

    def order(self, mixer: Attention) -> Callable[[Form], Form]:
        """How queries, keys and values lie in their tensor."""
        return lambda form: ByHead(mixer.kv_heads, form)

    def whole(self, spec: Any) -> tuple[Block, Attention, MLP, LayerNorm]:
        """The parts of the only block, of a model that may be of the family."""
        match spec:
            case Decoder(
                block=Block(mixer=Attention() as mixer, ff=MLP() as ff, norm=LayerNorm() as norm) as block, first=()
            ):
                return block, mixer, ff, norm
        raise Unfit("it is no decoder of equal layers of attention, a plain feed-forward layer and LayerNorm")

    def copies(self, spec: Decoder) -> dict[str, str]:
        return {f"{self.top['head']}.weight": f"{self.top['embedding']}.weight"} if spec.tied else {}

    def rules(self, spec: Decoder) -> Iterable[Rule]:
        yield Rule(("embedding",), (f"{self.top['embedding']}.weight",), Table(spec.vocab))
        for name in ("embed_norm", "norm"):
            yield from norm(name, self.top.get(name, ""), getattr(spec, name))
        if not spec.tied:
            yield Rule(("unembedding",), (f"{self.top['head']}.weight",), Table(spec.vocab))
        yield from layered(spec, self.top["layers"] + ".{}.", self.layer)

    def layer(self, block: Block) -> Iterator[Rule]:
        mixer: Any = block.mixer
        ff: Any = block.ff
        order, qkv = self.order(mixer), self.names["qkv"]
        yield Rule(tuple(f"{name}.weight" for name in QKV), (f"{qkv}.weight",), order(Dense()))
        if mixer.bias:
            yield Rule(tuple(f"{name}.bias" for name in QKV), (f"{qkv}.bias",), order(Flat()))
        yield from linear("mixer.out", self.names["out"], bias=mixer.output_bias, inputs=2)
        for part in ("up", "down"):
            yield from linear(f"ff.{part}", self.names[part], bias=ff.bias)
        for name in block.residual.norms(block.parts):
            yield from norm(f"norms.{name}", self.norm_names(block)[name], block.norm)

    def norm_names(self, block: Block) -> dict[str, str]:
        """Our names of a block's norms to theirs."""
        del block
        return {"mixer": "input_layernorm", "ff": "post_attention_layernorm"}


class GPTNeoX(Fused):
    """GPT-NeoX 20B (Black et al. 2022) and Pythia."""

    types = ("gpt_neox",)
    ignored = (".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
    architecture = "GPTNeoXForCausalLM"
    names = {  # noqa: RUF012
        "qkv": "attention.query_key_value", "out": "attention.dense", "up": "mlp.dense_h_to_4h",
        "down": "mlp.dense_4h_to_h",
    }  # fmt: skip
    top = {  # noqa: RUF012
        "embedding": "gpt_neox.embed_in", "norm": "gpt_neox.final_layer_norm", "head": "lm_head",
        "layers": "gpt_neox.layers",
    }  # fmt: skip

    def read(self, fields: Fields) -> Decoder:
        fields.skip("max_position_embeddings", "is_decoder")
        norm, heads = LayerNorm(epsilon=fields("layer_norm_eps", 1e-5)), fields("num_attention_heads", 64)
        bias, share = fields("attention_bias", True), fields("rotary_pct", 0.25)
        position = rope.read(fields, base=fields("rotary_emb_base", 10000.0), fraction=share)
        return Decoder(
            vocab=fields("vocab_size", 50432),
            width=fields("hidden_size", 6144),
            layers=fields("num_hidden_layers", 44),
            block=Block(
                mixer=Attention(heads=heads, kv_heads=heads, position=position, bias=bias, output_bias=bias),
                ff=MLP(
                    hidden=fields("intermediate_size", 24576),
                    activation=activations.read(fields, "hidden_act", "gelu"),
                    bias=True,
                ),
                norm=norm,
                residual=Parallel() if fields("use_parallel_residual", True) else PreNorm(),
            ),
            norm=norm,
            tied=fields("tie_word_embeddings", False),
        )

    def write(self, spec: Any) -> dict[str, Any]:
        block, mixer, ff, norm = self.whole(spec)
        if not isinstance(mixer.position, RoPE):
            raise Unfit("its attention has no RoPE")
        return {
            "model_type": "gpt_neox",
            "architectures": [self.architecture],
            "vocab_size": spec.vocab,
            "hidden_size": spec.width,
            "num_hidden_layers": spec.layers,
            "num_attention_heads": mixer.heads,
            "intermediate_size": ff.hidden,
            "hidden_act": activations.write(ff.activation, "gelu"),
            "layer_norm_eps": norm.epsilon,
            "attention_bias": mixer.bias,
            "use_parallel_residual": isinstance(block.residual, Parallel),
            "rope_parameters": {"partial_rotary_factor": 1.0} | rope.write(mixer.position),
            "tie_word_embeddings": spec.tied,
        }

    def renamed(self, spec: Decoder, name: str) -> str:
        del spec
        return "lm_head.weight" if name == "embed_out.weight" else name


class Falcon(Fused):
    """Falcon (Almazrouei et al. 2023): MQA or GQA, one shared norm, two, or one after another."""

    types = ("falcon",)
    ignored = (".rotary_emb.inv_freq",)
    architecture = "FalconForCausalLM"
    names = {  # noqa: RUF012
        "qkv": "self_attention.query_key_value", "out": "self_attention.dense", "up": "mlp.dense_h_to_4h",
        "down": "mlp.dense_4h_to_h",
    }  # fmt: skip
    top = {  # noqa: RUF012
        "embedding": "transformer.word_embeddings", "norm": "transformer.ln_f", "head": "lm_head",
        "layers": "transformer.h",
    }  # fmt: skip

    def read(self, fields: Fields) -> Decoder:
        fields.skip("max_position_embeddings")
        heads, new = fields("num_attention_heads", 71), fields("new_decoder_architecture", False)
        multi, kv_heads = fields("multi_query", True), fields("num_kv_heads", heads)
        norm, bias = LayerNorm(epsilon=fields("layer_norm_epsilon", 1e-5)), fields("bias", False)
        width = fields("hidden_size", 4544)
        parallel = fields("parallel_attn", True)
        norms = fields("num_ln_in_parallel_attn", 2) if new else fields.only("num_ln_in_parallel_attn", 1)
        fields.only("apply_residual_connection_post_layernorm", False)
        fields.only("alibi", False)  # transformers rounds its slopes to bfloat16
        residual = PreNorm() if not (parallel or new) else Parallel() if norms == 2 else SharedParallel()
        return Decoder(
            vocab=fields("vocab_size", 65024),
            width=width,
            layers=fields("num_hidden_layers", 32),
            block=Block(
                mixer=Attention(
                    heads=heads,
                    kv_heads=kv_heads if new else 1 if multi else heads,
                    position=rope.read(fields),
                    bias=bias,
                    output_bias=bias,
                ),
                ff=MLP(
                    hidden=fields("ffn_hidden_size", 4 * width),
                    activation=activations.read(fields, "activation", "gelu"),
                    bias=bias,
                ),
                norm=norm,
                residual=residual,
            ),
            norm=norm,
            tied=fields("tie_word_embeddings", True),
        )

    def write(self, spec: Any) -> dict[str, Any]:
        block, mixer, ff, norm = self.whole(spec)
        new = isinstance(block.residual, Parallel) or mixer.kv_heads not in (1, mixer.heads)
        if not isinstance(mixer.position, RoPE):
            raise Unfit("its attention has no RoPE")
        return {
            "model_type": "falcon",
            "architectures": [self.architecture],
            "vocab_size": spec.vocab,
            "hidden_size": spec.width,
            "num_hidden_layers": spec.layers,
            "num_attention_heads": mixer.heads,
            "num_kv_heads": mixer.kv_heads,
            "multi_query": mixer.kv_heads == 1,
            "ffn_hidden_size": ff.hidden,
            "activation": activations.write(ff.activation, "gelu"),
            "layer_norm_epsilon": norm.epsilon,
            "bias": mixer.bias,
            "new_decoder_architecture": new,
            "num_ln_in_parallel_attn": 2 if isinstance(block.residual, Parallel) else 1,
            "parallel_attn": not isinstance(block.residual, PreNorm),
            "rope_parameters": rope.write(mixer.position),
            "tie_word_embeddings": spec.tied,
        }

    def norm_names(self, block: Block) -> dict[str, str]:
        if isinstance(block.residual, Parallel):
            return {"mixer": "ln_attn", "ff": "ln_mlp"}
        return {"shared": "input_layernorm", "mixer": "input_layernorm", "ff": "post_attention_layernorm"}


SAID_BY_TRAINING = (  # in the first checkpoints
    "pretraining_tp", "slow_but_exact", "seq_length", "masked_softmax_fusion", "attention_softmax_in_fp32",
    "bias_dropout_fusion", "skip_bias_add", "skip_bias_add_qkv", "offset_alibi",
)  # fmt: skip


class Bloom(Fused):
    """BLOOM (Scao et al. 2022): ALiBi, a norm on the embeddings."""

    types = ("bloom",)
    architecture = "BloomForCausalLM"
    names = {  # noqa: RUF012
        "qkv": "self_attention.query_key_value", "out": "self_attention.dense", "up": "mlp.dense_h_to_4h",
        "down": "mlp.dense_4h_to_h",
    }  # fmt: skip
    top = {  # noqa: RUF012
        "embedding": "transformer.word_embeddings", "embed_norm": "transformer.word_embeddings_layernorm",
        "norm": "transformer.ln_f", "head": "lm_head", "layers": "transformer.h",
    }  # fmt: skip

    def read(self, fields: Fields) -> Decoder:
        fields.only("apply_residual_connection_post_layernorm", False)
        fields.skip(*SAID_BY_TRAINING)
        width = fields("n_embed", None) or fields("hidden_size", 64)
        fields.skip("hidden_size")
        heads, norm = (
            fields("n_head", None) or fields("num_attention_heads", 8),
            LayerNorm(epsilon=fields("layer_norm_epsilon", 1e-5)),
        )
        return Decoder(
            vocab=fields("vocab_size", 250880),
            width=width,
            layers=fields("n_layer", None) or fields("num_hidden_layers", 2),
            block=Block(
                mixer=Attention(heads=heads, kv_heads=heads, position=ALiBi(), bias=True, output_bias=True),
                ff=MLP(hidden=4 * width, activation=GELU(approximate=True), bias=True),
                norm=norm,
            ),
            embed_norm=norm,
            norm=norm,
            tied=fields("tie_word_embeddings", True),
        )

    def renamed(self, spec: Decoder, name: str) -> str:
        """The first checkpoints lack the prefix."""
        del spec
        return under("transformer.", name, "lm_head.")

    def write(self, spec: Any) -> dict[str, Any]:
        _, mixer, _, norm = self.whole(spec)
        return {
            "model_type": "bloom",
            "architectures": [self.architecture],
            "vocab_size": spec.vocab,
            "hidden_size": spec.width,
            "n_layer": spec.layers,
            "n_head": mixer.heads,
            "layer_norm_epsilon": norm.epsilon,
            "tie_word_embeddings": spec.tied,
        }


class MPT(Fused):
    """MPT (MosaicML 2023): ALiBi, no biases, not even in the norms."""

    types = ("mpt",)
    architecture = "MptForCausalLM"
    names = {"qkv": "attn.Wqkv", "out": "attn.out_proj", "up": "ffn.up_proj", "down": "ffn.down_proj"}  # noqa: RUF012
    top = {  # noqa: RUF012
        "embedding": "transformer.wte", "norm": "transformer.norm_f", "head": "lm_head", "layers": "transformer.blocks",
    }  # fmt: skip

    def order(self, mixer: Attention) -> Callable[[Form], Form]:
        return Joined

    def norm_names(self, block: Block) -> dict[str, str]:
        return {"mixer": "norm_1", "ff": "norm_2"}

    def read(self, fields: Fields) -> Decoder:
        inner = Fields({"model_type": "mpt", **(fields("attn_config", None) or {})}, f"{fields.where}: attn_config")
        for name, allowed in {
            "attn_type": "multihead_attention",
            "prefix_lm": False,
            "qk_ln": False,
            "alibi": True,
        }.items():
            inner.only(name, allowed)
        inner.only("attn_uses_sequence_id", False)
        inner.skip("attn_impl")
        fields.only("no_bias", True)
        fields.only("norm_type", "low_precision_layernorm")
        fields.only("embedding_fraction", 1.0)
        fields.only("expansion_ratio", 4)
        fields.skip("learned_pos_emb", "init_device", "max_seq_len", "verbose", "init_config", "tokenizer_name")
        heads, width = fields("n_heads", 16), fields("d_model", 2048)
        norm = LayerNorm(epsilon=fields("layer_norm_epsilon", 1e-5), bias=False)
        inner.only("alibi_bias_max", 8)  # transformers doesn't look at it
        mixer = Attention(heads=heads, kv_heads=heads, position=ALiBi(), scale=inner("softmax_scale", None))
        inner.finish()
        return Decoder(
            vocab=fields("vocab_size", 50368),
            width=width,
            layers=fields("n_layers", 24),
            block=Block(mixer=mixer, ff=MLP(hidden=4 * width, activation=GELU(approximate=False)), norm=norm),
            norm=norm,
            tied=fields("tie_word_embeddings", True),
        )

    def write(self, spec: Any) -> dict[str, Any]:
        _, mixer, _, norm = self.whole(spec)
        if not isinstance(mixer.position, ALiBi):
            raise Unfit("its attention has no ALiBi")
        return {
            "model_type": "mpt",
            "architectures": [self.architecture],
            "vocab_size": spec.vocab,
            "d_model": spec.width,
            "n_layers": spec.layers,
            "n_heads": mixer.heads,
            "layer_norm_epsilon": norm.epsilon,
            "attn_config": {"softmax_scale": mixer.scale},
            "tie_word_embeddings": spec.tied,
        }
