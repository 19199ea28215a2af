"""Mamba (Gu and Dao 2023), Mamba-2 (Dao and Gu 2024) and Bamba, a hybrid of Mamba-2 and attention (IBM 2024)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from lm.hub import rope
from lm.hub.families.llama import Llama, gated
from lm.hub.family import Family, Rule, Unfit, flat, joined, layered, linear, norm, same
from lm.hub.fields import Fields
from lm.hub.forms import Flat, Joined, Table, Taps
from lm.models.decoder import Decoder
from lm.nn.attention import Attention
from lm.nn.block import Block
from lm.nn.norms import RMSNorm
from lm.nn.rope import RoPE
from lm.nn.ssm.gated_norm import GateThenNorm
from lm.nn.ssm.mamba import Mamba
from lm.nn.ssm.mamba2 import Mamba2

UNREAD = (  # about initial values, ways to compute, and what other fields say
    "time_step_min", "time_step_max", "time_step_floor", "time_step_scale", "time_step_init_scheme", "time_step_rank",
    "rescale_prenorm_residual", "residual_in_fp32", "use_mambapy", "use_associative_scan", "intermediate_size",
    "d_inner", "d_model", "n_layer", "pad_vocab_size_multiple", "ssm_cfg", "fused_add_norm", "norm_before_gate",
)  # fmt: skip


def convolutions(modules: tuple[str, ...], theirs: str, *, bias: bool) -> Iterator[Rule]:
    yield Rule(tuple(f"{name}.kernel" for name in modules), (f"{theirs}.weight",), Joined(Taps()))
    if bias:
        yield Rule(tuple(f"{name}.bias" for name in modules), (f"{theirs}.bias",), Joined(Flat()))


def mamba2_rules(mixer: Mamba2, theirs: str) -> Iterator[Rule]:
    """Of one Mamba-2 mixer."""
    parts = tuple(f"mixer.{name}" for name in ("gate", "x", "B", "C", "dt"))
    yield from joined(parts, f"{theirs}.in_proj", bias=mixer.bias)
    yield from convolutions(tuple(f"mixer.{n}_conv" for n in "xBC"), f"{theirs}.conv1d", bias=mixer.conv_bias)
    for name in ("dt_bias", "A_log", "D"):
        yield same(f"mixer.{name}", f"{theirs}.{name}")
    yield flat("mixer.norm.scale", f"{theirs}.norm.weight")
    yield from linear("mixer.out", f"{theirs}.out_proj", bias=mixer.bias, inputs=2)


def limits(fields: Fields) -> dict[str, float | None]:
    """Of the step sizes; no upper one where it is infinite."""
    least, most = (float(limit) for limit in map(_plain, fields("time_step_limit", (0.0, math.inf))))
    return {"dt_least": least, "dt_most": None if math.isinf(most) else most}


def _plain(limit: Any) -> Any:
    """transformers writes infinity, which JSON lacks, as {"__float__": "Infinity"}."""
    return limit.get("__float__") if isinstance(limit, dict) else limit


def write_limits(mixer: Mamba2) -> list[Any]:
    return [mixer.dt_least, {"__float__": "Infinity"} if mixer.dt_most is None else mixer.dt_most]


class Backbone(Family):
    """What the two generations share: a mixer alone in every layer."""

    architecture: str

    def decoder(self, fields: Fields, mixer: Mamba | Mamba2, *, vocab: int, depth: int, tied: bool) -> Decoder:
        fields.only("hidden_act", "silu")
        fields.only("rms_norm", True)
        fields.skip(*UNREAD)
        norm = RMSNorm(epsilon=fields("layer_norm_epsilon", 1e-5))
        return Decoder(
            vocab=fields("vocab_size", vocab),
            width=fields("hidden_size"),
            layers=fields("num_hidden_layers", depth),
            block=Block(mixer=mixer, norm=norm),
            norm=norm,
            tied=fields("tie_word_embeddings", tied),
        )

    def common(self, spec: Decoder) -> dict[str, Any]:
        if not isinstance(spec.norm, RMSNorm):
            raise Unfit("it ends with no RMSNorm")
        return {
            "model_type": self.types[0],
            "architectures": [self.architecture],
            "vocab_size": spec.vocab,
            "hidden_size": spec.width,
            "num_hidden_layers": spec.layers,
            "layer_norm_epsilon": spec.norm.epsilon,
            "tie_word_embeddings": spec.tied,
        }

    def copies(self, spec: Decoder) -> dict[str, str]:
        return {"lm_head.weight": "backbone.embeddings.weight"} if spec.tied else {}

    def renamed(self, spec: Decoder, name: str) -> str:
        """The first checkpoints, made by the authors, have the singular."""
        del spec
        return name.replace("backbone.embedding.", "backbone.embeddings.")

    def rules(self, spec: Decoder) -> Iterable[Rule]:
        yield Rule(("embedding",), ("backbone.embeddings.weight",), Table(spec.vocab))
        yield from norm("norm", "backbone.norm_f", spec.norm)
        if not spec.tied:
            yield Rule(("unembedding",), ("lm_head.weight",), Table(spec.vocab))
        yield from layered(spec, "backbone.layers.{}.", self.layer)

    def layer(self, block: Block) -> Iterator[Rule]:
        raise NotImplementedError


class Mamba1(Backbone):
    types = ("mamba",)
    architecture = "MambaForCausalLM"

    def read(self, fields: Fields) -> Decoder:
        rank = fields("time_step_rank", "auto")
        mixer = Mamba(
            expand=fields("expand", 2),
            state=fields("state_size", 16),
            conv=fields("conv_kernel", 4),
            dt_rank=None if rank in ("auto", math.ceil(fields("hidden_size") / 16)) else rank,
            conv_bias=fields("use_conv_bias", True),
            bias=fields("use_bias", False),
        )
        return self.decoder(fields, mixer, vocab=50280, depth=32, tied=True)

    def write(self, spec: Any) -> dict[str, Any]:
        match spec:
            case Decoder(block=Block(mixer=Mamba(norm=None) as mixer, ff=None)):
                return self.common(spec) | {
                    "expand": mixer.expand,
                    "state_size": mixer.state,
                    "conv_kernel": mixer.conv,
                    "time_step_rank": mixer.rank(spec.width),
                    "use_conv_bias": mixer.conv_bias,
                    "use_bias": mixer.bias,
                }
        raise Unfit("it is no decoder of Mamba layers alone")

    def layer(self, block: Block) -> Iterator[Rule]:
        mixer: Any = block.mixer
        yield from joined(("mixer.inner", "mixer.gate"), "mixer.in_proj", bias=mixer.bias)
        yield from convolutions(("mixer.conv",), "mixer.conv1d", bias=mixer.conv_bias)
        yield from joined(("mixer.dt_down", "mixer.B", "mixer.C"), "mixer.x_proj", bias=False)
        yield from linear("mixer.dt_up", "mixer.dt_proj")
        yield same("mixer.dt_bias", "mixer.dt_proj.bias")
        yield same("mixer.A_log", "mixer.A_log")
        yield same("mixer.D", "mixer.D")
        yield from linear("mixer.out", "mixer.out_proj", bias=mixer.bias)
        yield from norm("norms.mixer", "norm", block.norm)


class Mamba2LM(Backbone):
    types = ("mamba2",)
    architecture = "Mamba2ForCausalLM"

    def read(self, fields: Fields) -> Decoder:
        mixer = Mamba2(
            heads=fields("num_heads", 128),
            head_width=fields("head_dim", 64),
            groups=fields("n_groups", 8),
            state=fields("state_size", 128),
            conv=fields("conv_kernel", 4),
            norm=GateThenNorm(epsilon=fields("layer_norm_epsilon", 1e-5)),
            conv_bias=fields("use_conv_bias", True),
            bias=fields("use_bias", False),
            **limits(fields),  # type: ignore[arg-type]
        )
        fields.skip("chunk_size", "expand")  # another way to sum; heads and their width say the other
        return self.decoder(fields, mixer, vocab=32768, depth=64, tied=False)

    def write(self, spec: Any) -> dict[str, Any]:
        match spec:
            case Decoder(block=Block(mixer=Mamba2() as mixer, ff=None)):
                expand, rest = divmod(mixer.heads * mixer.head_width, spec.width)
                if rest:
                    raise Unfit("its inner width is no multiple of its width")
                return self.common(spec) | {
                    "num_heads": mixer.heads,
                    "head_dim": mixer.head_width,
                    "n_groups": mixer.groups,
                    "state_size": mixer.state,
                    "conv_kernel": mixer.conv,
                    "use_conv_bias": mixer.conv_bias,
                    "use_bias": mixer.bias,
                    "time_step_limit": write_limits(mixer),
                    "expand": expand,
                }
        raise Unfit("it is no decoder of Mamba-2 layers alone")

    def layer(self, block: Block) -> Iterator[Rule]:
        yield from mamba2_rules(block.mixer, "mixer")  # type: ignore[arg-type]
        yield from norm("norms.mixer", "norm", block.norm)


class Bamba(Llama):
    """Attention in some layers, Mamba-2 in the others, a gated feed-forward part in all."""

    types = ("bamba",)
    architecture = "BambaForCausalLM"
    vocab, hidden, epsilon = 128000, 14336, 1e-5
    norms = {"mixer": "input_layernorm", "ff": "pre_ff_layernorm"}  # noqa: RUF012

    def heads(self, fields: Fields) -> tuple[int, int]:
        return fields("num_attention_heads", 32), fields("num_key_value_heads", 8)

    def position(self, fields: Fields, i: int) -> RoPE:
        fields.skip("partial_rotary_factor")
        found = rope.read(fields, fraction=0.5)
        return RoPE(base=found.base, fraction=0.5, scaling=found.scaling)  # whatever the file says of the fraction

    def mixer(self, fields: Fields, i: int) -> Any:
        fields.skip("mamba_chunk_size", "mamba_expand", "num_logits_to_keep", "z_loss_coefficient")
        fields.skip("attn_rotary_emb", "use_mamba_kernels")
        attention = super().mixer(fields, i)
        heads, width = fields("mamba_n_heads", 128), fields("hidden_size", self.width)
        each = fields("mamba_d_head", "auto")
        mamba = Mamba2(
            heads=heads,
            head_width=fields("mamba_expand", 2) * width // heads if each == "auto" else each,
            groups=fields("mamba_n_groups", 1),
            state=fields("mamba_d_state", 256),
            conv=fields("mamba_d_conv", 4),
            norm=GateThenNorm(epsilon=fields("rms_norm_eps", self.epsilon)),
            conv_bias=fields("mamba_conv_bias", True),
            bias=fields("mamba_proj_bias", False),
            **limits(fields),  # type: ignore[arg-type]
        )
        return attention if i in fields("attn_layer_indices", []) else mamba

    def is_mixer(self, mixer: Any) -> bool:
        return isinstance(mixer, Mamba2) or super().is_mixer(mixer)

    def write_mixers(self, spec: Decoder, mixers: list[Any]) -> dict[str, Any]:
        mamba = next((mixer for mixer in mixers if isinstance(mixer, Mamba2)), None)
        attention = [mixer for mixer in mixers if isinstance(mixer, Attention)]
        if mamba is None or not attention:
            raise Unfit("it has no Mamba-2 layer, or no attention")
        found = super().write_mixers(spec, attention)
        found.pop("head_dim")
        return found | {
            "attn_layer_indices": [i for i, mixer in enumerate(mixers) if isinstance(mixer, Attention)],
            "mamba_n_heads": mamba.heads,
            "mamba_d_head": mamba.head_width,
            "mamba_expand": mamba.heads * mamba.head_width // spec.width,
            "mamba_n_groups": mamba.groups,
            "mamba_d_state": mamba.state,
            "mamba_d_conv": mamba.conv,
            "mamba_conv_bias": mamba.conv_bias,
            "mamba_proj_bias": mamba.bias,
            "time_step_limit": write_limits(mamba),
        }

    def rules(self, spec: Decoder) -> Iterable[Rule]:
        for rule in super().rules(spec):
            yield rule if rule.ours[0] != "norm.scale" else same("norm.scale", "model.final_layernorm.weight")

    def mixer_rules(self, spec: Decoder, mixer: Any) -> Iterator[Rule]:
        if isinstance(mixer, Mamba2):
            yield from mamba2_rules(mixer, "mamba")
        else:
            yield from super().mixer_rules(spec, mixer)

    def ff_rules(self, ff: Any) -> Iterator[Rule]:
        yield from gated("ff", "feed_forward", ff)
