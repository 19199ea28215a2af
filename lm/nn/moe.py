"""Mixture of experts: a feed-forward layer of which each token uses a part, chosen by a router."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lm.config import ConfigError, config
from lm.nn import expert_parallel
from lm.nn.aux import Aux, joined, pooled
from lm.nn.cost import Cost, dense
from lm.nn.dispatch import Dispatch, Dropless, Experts, Rows
from lm.nn.feedforward import MLP, FeedForward, GatedMLP, to_residual
from lm.nn.kernels.recompute import recomputed
from lm.nn.linear import Dims, Linear
from lm.nn.param import normal, param, zeros
from lm.nn.routing import Routed, Routing, SoftmaxTopK
from lm.nn.routing_losses import LoadBalance, RoutingLoss
from lm.shapes import Array, Float
from lm.sharding import Layout


@config
class MoE(FeedForward):
    """y = sum over a token's experts of weight * expert(x), plus shared(x) (Shazeer et al. 2017; DeepSeekMoE 2024).

    expert: what each of the `experts` is. Fine-grained experts are more and narrower ones, with a larger k. shared:
    what every token passes besides. losses: terms of the objective for the router's sake; a tuple, for any of them.
    Metrics: moe/max_load, the fullest expert's load over the mean; moe/entropy of the router's scores in nats;
    moe/dropped, the share of choices not computed; and each loss's unweighted value.
    """

    expert: GatedMLP | MLP
    experts: int
    routing: Routing = SoftmaxTopK(k=2)
    shared: FeedForward | None = None
    dispatch: Dispatch = Dropless()
    losses: tuple[RoutingLoss, ...] = (LoadBalance(),)

    def __post_init__(self) -> None:
        if self.experts < 1:
            raise ConfigError(f"experts={self.experts} must be at least 1")
        self.routing.check(self.experts)
        self.dispatch.check(self.routing, self.experts)
        for loss in self.losses:
            loss.check(self.routing)

    def build(self, width: int, *, rngs: nnx.Rngs, depth: int = 1) -> MoELayer:
        return MoELayer(self, width, rngs=rngs, depth=depth)

    def cost(self, width: int, length: int) -> Cost:
        """params: of all experts; active: of those that compute a token; flops: of the rows that are computed."""
        one = self.expert.cost(width, 1)
        total = Cost(
            params=self.experts * one.params,
            active=round(self.routing.per_token() * one.params),
            flops=self.dispatch.rows(self.routing, self.experts, length) * one.flops,
        )
        total += self.routing.cost(width, self.experts, length)
        return total if self.shared is None else total + self.shared.cost(width, length)

    def check_split(self, where: Layout) -> None:
        expert_parallel.check_split(where)
        self.routing.check_split(where)
        self.dispatch.check_split(where)
        if self.shared is not None:
            self.shared.check_split(where)


class MoELayer(nnx.Module):
    def __init__(self, spec: MoE, width: int, *, rngs: nnx.Rngs, depth: int):
        self.spec = spec
        self.router = spec.routing.build(width, spec.experts, rngs=rngs)
        self.experts = ExpertLayers(spec.expert, spec.experts, width, rngs=rngs, depth=depth)
        self.shared = None if spec.shared is None else spec.shared.build(width, rngs=rngs, depth=depth)

    def __call__(self, x: Float[Array, "B L D"]) -> tuple[Float[Array, "B L D"], Aux]:
        spec = self.spec
        whole_rows = spec.routing.slots(spec.experts, x.shape[1]) is not None
        y, routed = expert_parallel.by_device(self._computed, x, self.router, self.experts, whole_rows)
        found = [self._watched(routed), *(loss(routed, spec.experts) for loss in spec.losses)]
        if self.shared is not None:
            with jax.named_scope("shared"):
                more, aux = self.shared(x)  # type: ignore[operator]
            y, found = y + more, [*found, aux]
        return y, joined(found)

    def _computed(
        self, x: Float[Array, "B L D"], router: Any, experts: Experts
    ) -> tuple[Float[Array, "B L D"], Routed]:
        with jax.named_scope("router"):
            routed = router(x)
        with jax.named_scope("experts"):
            return self.spec.dispatch(x, routed, experts, self.spec.experts), routed

    def _watched(self, routed: Routed) -> Aux:
        count = self.spec.experts
        watched: dict[str, jax.Array] = {}
        if (probs := routed.probs) is not None:
            watched["moe/entropy"] = jnp.mean(jnp.sum(jax.scipy.special.entr(probs), axis=-1))
        if (dropped := self.spec.dispatch.dropped(routed, count)) is not None:
            watched["moe/dropped"] = dropped
        load_E = jax.lax.stop_gradient(routed.by.load(count).mean(axis=0))
        fullest = pooled(lambda load_E: Aux(metrics={"moe/max_load": count * load_E.max()}), load_E)
        return joined([Aux(metrics=jax.lax.stop_gradient(watched)), fullest])


class ExpertLayers(nnx.Module):
    """The weights of all experts: those of one of them, with an axis "expert" in front."""

    def __init__(self, spec: GatedMLP | MLP, count: int, width: int, *, rngs: nnx.Rngs, depth: int):
        self.spec = spec
        embed, mlp = {"embed": width}, {"mlp": spec.hidden}
        self.gate = ExpertLinear(count, embed, mlp, bias=spec.bias, rngs=rngs) if isinstance(spec, GatedMLP) else None
        self.up = ExpertLinear(count, embed, mlp, bias=spec.bias, rngs=rngs)
        self.down = ExpertLinear(count, mlp, embed, bias=spec.bias, scale=to_residual(depth), rngs=rngs)

    def __call__(self, x: Float[Array, "*rows D"], rows: Rows) -> Float[Array, "*rows D"]:
        up = self.up(x, rows)
        if isinstance(self.spec, GatedMLP):
            assert self.gate is not None
            return self.down(recomputed(self.spec.gated, self.gate(x, rows), up), rows)
        return self.down(recomputed(self.spec.activation, up), rows)


class ExpertLinear(nnx.Module):
    """`Linear` for rows of which each belongs to an expert: weight [E I O], bias [E O]."""

    def __init__(self, count: int, inputs: Dims, outputs: Dims, *, bias: bool, scale: float = 1.0, rngs: nnx.Rngs):
        shape, names = (count, *inputs.values(), *outputs.values()), ("expert", *inputs, *outputs)
        self.weight = param(rngs, shape, names, normal(scale / math.sqrt(math.prod(inputs.values()))))
        self.bias = param(rngs, (count, *outputs.values()), ("expert", *outputs), zeros) if bias else None

    def __call__(self, x: Float[Array, "*rows I"], rows: Rows) -> Float[Array, "*rows O"]:
        y = rows.product(x, self.weight[...])
        if self.bias is None:
            return y
        return y + self.bias[...].astype(jnp.float32)[rows.expert].astype(y.dtype)  # its gradient: a float32 sum


@config
class SigmoidGated(FeedForward):
    """sigmoid(w x) ff(x) with a vector w: how Qwen2-MoE adds its shared expert."""

    ff: FeedForward

    def build(self, width: int, *, rngs: nnx.Rngs, depth: int = 1) -> SigmoidGatedLayer:
        return SigmoidGatedLayer(self, width, rngs=rngs, depth=depth)

    def cost(self, width: int, length: int) -> Cost:
        return self.ff.cost(width, length) + dense(width, 1, length)

    def check_split(self, where: Layout) -> None:
        self.ff.check_split(where)


class SigmoidGatedLayer(nnx.Module):
    def __init__(self, spec: SigmoidGated, width: int, *, rngs: nnx.Rngs, depth: int):
        self.spec = spec
        self.score = Linear({"embed": width}, {"gate": 1}, rngs=rngs)
        self.ff = spec.ff.build(width, rngs=rngs, depth=depth)

    def __call__(self, x: Float[Array, "B L D"]) -> tuple[Float[Array, "B L D"], Aux]:
        y, aux = self.ff(x)  # type: ignore[operator]
        return jax.nn.sigmoid(self.score(x)) * y, aux
