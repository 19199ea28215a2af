"""Switch Transformers (Fedus et al. 2021): T5 with sparse layers between dense ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lm.hub import activations
from lm.hub.families.t5 import T5
from lm.hub.family import Rule, Unfit, linear
from lm.hub.fields import Fields
from lm.hub.files import Tensors
from lm.hub.forms import Dense, Each
from lm.models import Decoder, EncoderDecoder, Model
from lm.nn.dispatch import FixedCapacity
from lm.nn.feedforward import MLP, FeedForward
from lm.nn.moe import MoE
from lm.nn.routing import SoftmaxTopK, switch


class Switch(T5):
    types = ("switch_transformers",)
    names = "SwitchTransformers"
    width, depth, heads = 768, 12, 12

    def scale(self, fields: Fields) -> float:
        return fields("d_model", self.width) ** -0.5 if fields("tie_word_embeddings", True) else 1.0

    def ff(self, fields: Fields, i: int, decoder: bool) -> FeedForward:
        fields.only("is_gated_act", False)
        fields.skip("feed_forward_proj", "add_cross_attention")
        activation = activations.read(fields, "dense_act_fn", "relu")
        dense, step = MLP(hidden=fields("d_ff", self.hidden), activation=activation), self.step(fields, decoder)
        return self.sparse(fields, dense) if step == 1 or (step > 0 and i % step == 1) else dense

    def step(self, fields: Fields, decoder: bool) -> int:
        """Every so many layers one is sparse, first the second."""
        side, layers = "encoder", fields("num_layers", self.depth)
        if decoder:
            side, layers = "decoder", fields("num_decoder_layers", layers)
        sparse = fields(f"num_sparse_{side}_layers", 3)
        return fields(f"{side}_sparse_step", layers // sparse if sparse else layers)

    def sparse(self, fields: Fields, expert: MLP) -> MoE:
        fields.only("router_dtype", "float32")
        fields.only("router_ignore_padding_tokens", False)
        fields.only("batch_prioritized_routing", False)
        fields.only("num_selected_experts", 1)
        fields.only("router_type", "tokens_masked")
        fields.only("reuse_router", False)
        fields.skip("capacity_factor", "router_jitter_noise", "add_router_probs", "router_z_loss_coef")
        return MoE(
            expert=expert,
            experts=fields("num_experts", 8),
            routing=switch(bias=fields("router_bias", False)),
            dispatch=FixedCapacity(places=fields("expert_capacity", 64)),
            losses=(),
        )

    # ---- the way back ----

    def write_decoder(self, decoder: Decoder) -> dict[str, Any]:
        config = super().write_decoder(decoder)
        del config["scale_decoder_outputs"]
        return config

    def write_ffs(self, spec: Any) -> dict[str, Any]:
        sides = (
            {"encoder": spec.encoder, "decoder": spec.decoder}
            if isinstance(spec, EncoderDecoder)
            else {"encoder": spec}
        )
        layers = {side: [block.ff for block in trunk.each()] for side, trunk in sides.items()}
        match next((ff for ffs in layers.values() for ff in ffs if isinstance(ff, MoE)), None):
            case MoE(expert=MLP() as expert, routing=SoftmaxTopK() as routing, dispatch=FixedCapacity() as room) as moe:
                pass
            case _:
                raise Unfit("none of its layers is sparse, with Switch's routing and a fixed capacity")
        config = {
            "d_ff": expert.hidden,
            "dense_act_fn": activations.write(expert.activation),
            "num_experts": moe.experts,
            "expert_capacity": room.places,
            "router_bias": routing.bias,
        }
        for side, ffs in layers.items():
            step = _step([isinstance(ff, MoE) for ff in ffs])
            config |= {f"{side}_sparse_step": step, f"num_sparse_{side}_layers": len(ffs) // step if step else 0}
        return config

    # ---- tensors ----

    def settled(self, spec: Any, tensors: Tensors) -> Model:
        return spec

    def ff_rules(self, ff: Any) -> Iterator[Rule]:
        names = {"up": "wi", "down": "wo"}
        if not isinstance(ff, MoE):
            for ours, theirs in names.items():
                yield from linear(ours, f"mlp.{theirs}")
            return
        yield from linear("router.score", "mlp.router.classifier", bias=ff.routing.score_bias)  # type: ignore[attr-defined]
        for ours, theirs in names.items():
            experts = tuple(f"mlp.experts.expert_{e}.{theirs}.weight" for e in range(ff.experts))
            yield Rule((f"experts.{ours}.weight",), experts, Each(Dense()))


def _step(sparse: list[bool]) -> int:
    """The step that gives these sparse layers, if one does."""
    places = [i for i, one in enumerate(sparse) if one]
    if len(places) < 2:
        return 0 if not places else 1 if places == [0] else len(sparse)
    return places[1] - places[0]
