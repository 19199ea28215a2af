"""Decoders with experts: Mixtral, Qwen2-MoE, Qwen3-MoE, GraniteMoE, DeepSeek-V3.

The losses that balance a router in training aren't part of what a checkpoint computes: they are read as none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from lm.hub import activations, rope
from lm.hub.families.llama import Llama, gated
from lm.hub.families.llama_like import Granite, Mistral, Qwen2, Qwen3, not_said
from lm.hub.family import Rule, Unfit, linear, norm, same
from lm.hub.fields import Fields
from lm.hub.forms import Apart, ByHead, Dense, Each, Flat, Form, Joined, Stacked, Unpaired
from lm.models.decoder import Decoder
from lm.nn.feedforward import FeedForward, GatedMLP
from lm.nn.mla import MLA
from lm.nn.moe import MoE, SigmoidGated
from lm.nn.norms import RMSNorm
from lm.nn.rope import RoPE
from lm.nn.routing import GroupLimit, SigmoidTopK, SoftmaxTopK


def experts(theirs: str, count: int, names: dict[str, str]) -> Iterator[Rule]:
    """Each expert's linear layers, in tensors of their own. names: ours to theirs; {} in `theirs` is the expert."""
    for ours, name in names.items():
        tensors = tuple(f"{theirs.format(i)}.{name}.weight" for i in range(count))
        yield Rule((f"ff.experts.{ours}.weight",), tensors, Each(Dense()))


PROJECTIONS = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}


def sparse(ffs: list[Any]) -> MoE:
    """The experts of the layers that have some."""
    found = next((ff for ff in ffs if isinstance(ff, MoE)), None)
    if found is None or not isinstance(found.expert, GatedMLP):
        raise Unfit("no layer has gated experts")
    return found


class LocalExperts:
    """Experts in every layer, the likeliest of which are weighted by a softmax over them."""

    hidden: ClassVar[int]

    def ff(self, fields: Fields, i: int) -> FeedForward:
        activation = activations.read(fields, "hidden_act", "silu")
        return MoE(
            expert=GatedMLP(hidden=fields("intermediate_size", self.hidden), activation=activation),
            experts=fields("num_local_experts", 8),
            routing=SoftmaxTopK(k=fields("num_experts_per_tok", 2)),
            losses=(),
        )

    def write_ffs(self, ffs: list[Any]) -> dict[str, Any]:
        moe = sparse(ffs)
        return {
            "intermediate_size": moe.expert.hidden,
            "hidden_act": activations.write(moe.expert.activation, "silu"),
            "num_local_experts": moe.experts,
            "num_experts_per_tok": moe.routing.per_token(),
        }


class Mixtral(LocalExperts, Mistral):
    """Jiang et al. 2024: 2 of 8 experts in every layer."""

    types = ("mixtral",)
    architecture = "MixtralForCausalLM"
    epsilon, sliding = 1e-5, None

    def trunk(self, fields: Fields) -> dict[str, Any]:
        fields.skip("router_jitter_noise")
        return {}

    def position(self, fields: Fields, i: int) -> RoPE:
        return rope.read(fields, base=1e6)

    def ff_rules(self, ff: Any) -> Iterator[Rule]:
        yield from linear("ff.router.score", "block_sparse_moe.gate")
        names = {"gate": "w1", "up": "w3", "down": "w2"}
        yield from experts("block_sparse_moe.experts.{}", ff.experts, names)


class QwenMoE:
    """What the two generations share: experts in every so many layers, dense ones in those that are named."""

    def window(self, fields: Fields, i: int) -> int | None:
        fields.only("use_sliding_window", False)
        fields.skip("sliding_window", "max_window_layers", "layer_types")
        return None

    def sparse_layer(self, fields: Fields, i: int) -> bool:
        step, dense = fields("decoder_sparse_step", 1), fields("mlp_only_layers", [])
        return i not in dense and (i + 1) % step == 0

    def experts(self, fields: Fields, count: int, k: int, hidden: int, shared: FeedForward | None) -> MoE:
        activation = activations.read(fields, "hidden_act", "silu")
        return MoE(
            expert=GatedMLP(hidden=fields("moe_intermediate_size", hidden), activation=activation),
            experts=fields("num_experts", None) or fields("num_local_experts", count),
            routing=SoftmaxTopK(k=fields("num_experts_per_tok", k), normalized=fields("norm_topk_prob", False)),
            shared=shared,
            losses=(),
        )

    def write_ffs(self, ffs: list[Any]) -> dict[str, Any]:
        moe = sparse(ffs)
        if not isinstance(moe.routing, SoftmaxTopK):
            raise Unfit("its router isn't a softmax")
        dense = next((ff for ff in ffs if isinstance(ff, GatedMLP)), None)
        return {
            "hidden_act": activations.write(moe.expert.activation, "silu"),
            "moe_intermediate_size": moe.expert.hidden,
            "num_experts": moe.experts,
            "num_experts_per_tok": moe.routing.k,
            "norm_topk_prob": moe.routing.normalized,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [i for i, ff in enumerate(ffs) if not isinstance(ff, MoE)],
            **({} if dense is None else {"intermediate_size": dense.hidden}),
        }

    def ff_rules(self, ff: Any) -> Iterator[Rule]:
        if not isinstance(ff, MoE):
            yield from gated("ff", "mlp", ff)
            return
        yield from linear("ff.router.score", "mlp.gate")
        yield from experts("mlp.experts.{}", ff.experts, PROJECTIONS)
        if isinstance(ff.shared, SigmoidGated):
            yield from linear("ff.shared.score", "mlp.shared_expert_gate")
            yield from gated("ff.shared.ff", "mlp.shared_expert", ff.shared.ff)  # type: ignore[arg-type]


class Qwen2MoE(QwenMoE, Qwen2):
    """Qwen1.5-MoE and Qwen2-MoE (Yang et al. 2024): fine-grained experts and a gated shared one."""

    types = ("qwen2_moe",)
    architecture = "Qwen2MoeForCausalLM"
    width, depth, hidden = 2048, 24, 5632

    def heads(self, fields: Fields) -> tuple[int, int]:
        return fields("num_attention_heads", 16), fields("num_key_value_heads", 16)

    def biases(self, fields: Fields) -> dict[str, bool]:
        return {"bias": fields("qkv_bias", True)}

    def ff(self, fields: Fields, i: int) -> FeedForward:
        hidden, shared = fields("intermediate_size", self.hidden), fields("shared_expert_intermediate_size", 5632)
        activation = activations.read(fields, "hidden_act", "silu")
        if not self.sparse_layer(fields, i):
            return GatedMLP(hidden=hidden, activation=activation)
        gate = SigmoidGated(ff=GatedMLP(hidden=shared, activation=activation))
        return self.experts(fields, 60, 4, 1408, gate)

    def write_mixers(self, spec: Decoder, mixers: list[Any]) -> dict[str, Any]:
        found = not_said(super().write_mixers(spec, mixers), "head_dim", "layer_types", "sliding_window")
        return found | {"qkv_bias": mixers[0].bias, "use_sliding_window": False}

    def write_ffs(self, ffs: list[Any]) -> dict[str, Any]:
        shared = sparse(ffs).shared
        if not (isinstance(shared, SigmoidGated) and isinstance(shared.ff, GatedMLP)):
            raise Unfit("its experts have no gated shared one")
        return super().write_ffs(ffs) | {"shared_expert_intermediate_size": shared.ff.hidden}


class Qwen3MoE(QwenMoE, Qwen3):
    """Qwen3-MoE (Yang et al. 2025): no shared expert, norms on queries and keys."""

    types = ("qwen3_moe",)
    architecture = "Qwen3MoeForCausalLM"
    width, depth, hidden, head = 2048, 24, 6144, None

    def heads(self, fields: Fields) -> tuple[int, int]:
        return fields("num_attention_heads", 32), fields("num_key_value_heads", 4)

    def ff(self, fields: Fields, i: int) -> FeedForward:
        hidden, activation = fields("intermediate_size", self.hidden), activations.read(fields, "hidden_act", "silu")
        if not self.sparse_layer(fields, i):
            return GatedMLP(hidden=hidden, activation=activation)
        return self.experts(fields, 128, 8, 768, None)

    def write_mixers(self, spec: Decoder, mixers: list[Any]) -> dict[str, Any]:
        return not_said(super().write_mixers(spec, mixers), "layer_types", "sliding_window") | {
            "use_sliding_window": False
        }


class GraniteMoE(LocalExperts, Granite):
    """IBM Granite 3 MoE: an expert's gate and up in one tensor of all experts."""

    types = ("granitemoe",)
    architecture = "GraniteMoeForCausalLM"

    def write_mixers(self, spec: Decoder, mixers: list[Any]) -> dict[str, Any]:
        return not_said(super().write_mixers(spec, mixers), "head_dim")

    def ff_rules(self, ff: Any) -> Iterator[Rule]:
        moe = "block_sparse_moe"
        yield from linear("ff.router.score", f"{moe}.router.layer")
        both = ("ff.experts.gate.weight", "ff.experts.up.weight")
        yield Rule(both, (f"{moe}.input_linear.weight",), Stacked(Joined(Dense())))
        yield Rule(("ff.experts.down.weight",), (f"{moe}.output_linear.weight",), Stacked(Dense()))


class DeepSeekV3(Llama):
    """DeepSeek-V3 and R1 (DeepSeek-AI 2024): MLA; after some dense layers fine-grained experts and shared ones.

    The released files are in FP8 and hold a module for predicting further tokens, neither of which is read.
    """

    types = ("deepseek_v3",)
    architecture = "DeepseekV3ForCausalLM"
    vocab, width, depth, hidden = 129280, 7168, 61, 18432

    def mixer(self, fields: Fields, i: int) -> MLA:
        fields.skip("num_key_value_heads", "head_dim", "qk_head_dim", "ep_size", "moe_layer_freq", "seq_aux", "aux_loss_alpha", "num_mtp_layers", "num_nextn_predict_layers")  # fmt: skip  # noqa: E501
        bias = fields("attention_bias", False)
        return MLA(
            heads=fields("num_attention_heads", 128),
            kv_rank=fields("kv_lora_rank", 512),
            q_rank=fields.nullable("q_lora_rank", 1536),
            nope_width=fields("qk_nope_head_dim", 128),
            rope_width=fields("qk_rope_head_dim", 64),
            value_width=fields("v_head_dim", 128),
            position=rope.read(fields, scored=True),
            norm=RMSNorm(epsilon=1e-6),  # whatever rms_norm_eps is
            bias=bias,
            output_bias=bias,
        )

    def ff(self, fields: Fields, i: int) -> FeedForward:
        fields.only("rope_interleave", True)
        fields.only("scoring_func", "sigmoid")
        fields.only("topk_method", "noaux_tc")
        hidden, activation = fields("intermediate_size", self.hidden), activations.read(fields, "hidden_act", "silu")
        each, shared = fields("moe_intermediate_size", 2048), fields("n_shared_experts", 1)
        groups, chosen = fields("n_group", 8), fields("topk_group", 4)
        moe = MoE(
            expert=GatedMLP(hidden=each, activation=activation),
            experts=fields("n_routed_experts", 256),
            routing=SigmoidTopK(
                k=fields("num_experts_per_tok", 8),
                normalized=fields("norm_topk_prob", True),
                scale=fields("routed_scaling_factor", 2.5),
                limit=None if groups == chosen else GroupLimit(groups=groups, chosen=chosen),
            ),
            shared=GatedMLP(hidden=each * shared, activation=activation) if shared else None,
            losses=(),
        )
        return moe if i >= fields("first_k_dense_replace", 3) else GatedMLP(hidden=hidden, activation=activation)

    def is_mixer(self, mixer: Any) -> bool:
        return isinstance(mixer, MLA) and isinstance(mixer.position, RoPE)

    def write_mixers(self, spec: Decoder, mixers: list[Any]) -> dict[str, Any]:
        one = mixers[0]
        return {
            "num_attention_heads": one.heads,
            "num_key_value_heads": one.heads,
            "kv_lora_rank": one.kv_rank,
            "q_lora_rank": one.q_rank,
            "qk_nope_head_dim": one.nope_width,
            "qk_rope_head_dim": one.rope_width,
            "v_head_dim": one.value_width,
            "attention_bias": one.bias,
            "rope_parameters": rope.write(one.position),
            **rope.write_length(one.position),
        }

    def write_ffs(self, ffs: list[Any]) -> dict[str, Any]:
        moe, dense = sparse(ffs), [ff for ff in ffs if isinstance(ff, GatedMLP)]
        if not isinstance(moe.routing, SigmoidTopK) or not isinstance(moe.shared, GatedMLP | None):
            raise Unfit("its router isn't a sigmoid, or its shared expert is no gated one")
        limit = moe.routing.limit or GroupLimit(groups=1, chosen=1)
        return {
            "intermediate_size": dense[0].hidden if dense else self.hidden,
            "moe_intermediate_size": moe.expert.hidden,
            "hidden_act": activations.write(moe.expert.activation, "silu"),
            "n_routed_experts": moe.experts,
            "n_shared_experts": 0 if moe.shared is None else moe.shared.hidden // moe.expert.hidden,
            "num_experts_per_tok": moe.routing.k,
            "norm_topk_prob": moe.routing.normalized,
            "routed_scaling_factor": moe.routing.scale,
            "n_group": limit.groups,
            "topk_group": limit.chosen,
            "first_k_dense_replace": len(dense),
        }

    def mixer_rules(self, spec: Decoder, mixer: Any) -> Iterator[Rule]:
        query: Form = Unpaired(Dense(), mixer.rope_width, mixer.nope_width)
        if mixer.q_rank is None:
            yield from linear("mixer.query", "self_attn.q_proj", form=query)
        else:
            yield from linear("mixer.query_latent", "self_attn.q_a_proj", bias=mixer.bias)
            yield from norm("mixer.query_norm", "self_attn.q_a_layernorm", mixer.norm)
            yield from linear("mixer.query", "self_attn.q_b_proj", form=query)
        yield from self._latent_rules(mixer)
        yield from norm("mixer.latent_norm", "self_attn.kv_a_layernorm", mixer.norm)
        both = ("mixer.key.weight", "mixer.value.weight")
        yield Rule(both, ("self_attn.kv_b_proj.weight",), ByHead(mixer.heads, Dense()))
        yield from linear("mixer.out", "self_attn.o_proj", bias=mixer.output_bias, inputs=2)

    def _latent_rules(self, mixer: MLA) -> Iterable[Rule]:
        forms: dict[str, Form] = {"weight": Dense(), "bias": Flat()}
        for part, form in forms.items():
            if part == "weight" or mixer.bias:
                both = (f"mixer.latent.{part}", f"mixer.key_rope.{part}")
                yield Rule(both, (f"self_attn.kv_a_proj_with_mqa.{part}",), Joined(Apart((form, Unpaired(form)))))

    def ff_rules(self, ff: Any) -> Iterator[Rule]:
        if not isinstance(ff, MoE):
            yield from gated("ff", "mlp", ff)
            return
        yield from linear("ff.router.score", "mlp.gate")
        yield same("ff.router.correction", "mlp.gate.e_score_correction_bias")
        yield from experts("mlp.experts.{}", ff.experts, PROJECTIONS)
        if isinstance(ff.shared, GatedMLP):
            yield from gated("ff.shared", "mlp.shared_experts", ff.shared)
