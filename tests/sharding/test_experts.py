"""Layers of experts on a mesh: every kind of them is what it is on one device, and tokens go to experts, not to all."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from lm import sharding
from lm.models import Decoder
from lm.nn import (
    MLP,
    Block,
    Capacity,
    Dense,
    Dropless,
    ExpertChoice,
    FixedCapacity,
    GatedMLP,
    GroupLimit,
    Hash,
    LoadBalance,
    LossFree,
    MoE,
    RouterZ,
    SequenceBalance,
    SigmoidGated,
    SigmoidTopK,
    SoftmaxTopK,
    expert_parallel,
    mha,
    param,
    switch,
)
from lm.nn.dispatch import Dispatch
from lm.nn.routing import Routing
from lm.sharding import ShardingError, ShardingRules
from lm.train.step import Program
from tests.nn.experts import layer, same, tokens
from tests.sharding.helper import TRAINING, assert_sharded_equals_single, gradients, one_step
from tests.tiny import VOCAB

ROWS, LENGTH, WIDTH, EXPERTS, HIDDEN = 8, 12, 16, 8, 8
PLAIN, GATED, BIASED = MLP(hidden=HIDDEN, bias=True), GatedMLP(hidden=HIDDEN), GatedMLP(hidden=HIDDEN, bias=True)
DROPLESS = Dropless()


def moe(routing: Routing, dispatch: Dispatch = DROPLESS, expert: GatedMLP | MLP = GATED, **more: Any) -> MoE:
    return MoE(**{"expert": expert, "experts": EXPERTS, "routing": routing, "dispatch": dispatch, "losses": (), **more})


GROUPS = SigmoidTopK(k=3, scale=2.5, limit=GroupLimit(groups=4, chosen=2))
BY_TOKEN = {
    "top-2": moe(SoftmaxTopK(k=2), expert=BIASED, losses=(LoadBalance(weight=1.0), RouterZ(weight=1.0))),
    "fine-grained, groups, shared": moe(
        GROUPS,
        expert=GatedMLP(hidden=4),
        experts=2 * EXPERTS,
        shared=SigmoidGated(ff=GATED),
        losses=(LossFree(), SequenceBalance(weight=1.0)),
    ),
    "hash": moe(Hash(), expert=PLAIN),
    "one expert takes all": moe(switch(bias=True), expert=PLAIN),
    "dense": moe(SoftmaxTopK(k=2), Dense(), expert=PLAIN),
}
BY_ROW = {
    "switch with some dropped": moe(switch(bias=True), Capacity(factor=1.0), expert=PLAIN, losses=(LoadBalance(),)),
    "switch with places": moe(switch(), FixedCapacity(places=2), expert=PLAIN),
    "experts that choose": moe(ExpertChoice(factor=2.0)),
}
EVERY = BY_TOKEN | BY_ROW
ALL_TO_ALLS = 5 * 4 + 4 * 4  # there and back, forward and backward, and the sizes where they differ


def drawn(name: str, spec: MoE) -> Any:
    module = layer(spec, width=WIDTH)
    if name == "one expert takes all":
        module.router.score.bias[...] = module.router.score.bias[...].at[5].set(100.0)
    return module


def outcome(where: str, kinds: Iterable[str] = EVERY, rows: int = ROWS) -> tuple[Any, str]:
    return computed(where, tuple(kinds), rows)


@functools.cache
def computed(where: str, kinds: tuple[str, ...], rows: int) -> tuple[Any, str]:
    """Of each kind: output, loss and metrics, and gradients of parameters and input; and the compiled program.

    The scalar weighs every output differently. One program for all kinds, since that compiles quicker than many.
    """
    place, x = sharding.layout(where), tokens(rows, LENGTH, width=WIDTH)
    weigh = jnp.asarray(np.random.default_rng(9).normal(size=x.shape), jnp.float32)
    modules = {name: drawn(name, EVERY[name]) for name in kinds}
    params = {name: param.split(module)[1] for name, module in modules.items()}
    axes = {name: param.axes(module) for name, module in modules.items()}
    lie = sharding.shardings(params, axes, place.rules, place.mesh)
    split = place.over("batch") if rows % place.ways("batch") == 0 else ()
    at = NamedSharding(place.mesh, PartitionSpec(split or None, place.over("length") or None))

    def one(name: str, params: param.Params, x: jax.Array) -> tuple[jax.Array, Any]:
        EVERY[name].check_split(place)
        with sharding.use(place):
            y, aux = param.merge(param.split(modules[name])[0], params)(x)
        return jnp.sum(weigh * y) + aux.loss, (y, aux)

    def every(params: dict[str, param.Params], x: jax.Array) -> dict[str, Any]:
        gradient = jax.grad(one, (1, 2), has_aux=True)
        return {name: gradient(name, params[name], x) for name in kinds}

    compiled = jax.jit(every, in_shardings=(lie, at)).lower(params, x).compile()
    return jax.device_get(compiled(*jax.device_put((params, x), (lie, at)))), compiled.as_text() or ""


ON: dict[str, Iterable[str]] = {
    "fsdp=2,expert=4": EVERY,
    "data=2,expert=2,tensor=2": EVERY,
    "fsdp=8": EVERY,
    "expert=4": ("top-2", "switch with some dropped"),
    "expert=2,sequence=2,tensor=2": BY_TOKEN,
}


@pytest.mark.parametrize("where", ON)
def test_every_kind_is_on_a_mesh_what_it_is_on_one_device(where: str) -> None:
    """Output, loss, metrics, and the gradients of all weights and of the input."""
    found, expected = outcome(where, ON[where])[0], outcome("")[0]
    for name in ON[where]:
        same(found[name], expected[name], 1e-5)


def test_one_expert_that_takes_all_tokens_loses_none() -> None:
    """Above, all of them come to the one device that holds it."""
    found = outcome("fsdp=2,expert=4")[0]
    _, (y, aux) = found["one expert takes all"]
    assert aux.metrics["moe/max_load"] == EXPERTS
    assert (np.abs(y).max(axis=-1) > 1e-3).all()
    assert found["switch with some dropped"][1][1].metrics["moe/dropped"] > 0.1


def test_rows_that_the_mesh_does_not_divide() -> None:
    """All devices do the same, as for everything else."""
    kinds = ("one expert takes all",)
    same(outcome("data=2,expert=4", kinds, 3)[0], outcome("", kinds, 3)[0], 1e-5)


# ---- what is sent ---------------------------------------------------------------------------------------------------


def collectives(text: str, kind: str) -> list[int]:
    """How many elements each collective of a kind results in."""
    lines = re.findall(rf"= (.*) {kind}(?:-start)?\(", text)
    shapes = [re.findall(r"\w+\[([\d,]*)\]", line) for line in lines]
    return [sum(math.prod(map(int, filter(None, one.split(",")))) for one in found) for found in shapes]


@pytest.mark.parametrize(("where", "owners", "exchanges"), [("fsdp=2,expert=4", 4, ALL_TO_ALLS), ("fsdp=8", 1, 0)])
def test_only_weights_are_gathered_and_only_by_the_devices_that_use_them(
    where: str, owners: int, exchanges: int
) -> None:
    text = outcome(where)[1]
    gathered, sent = collectives(text, "all-gather"), collectives(text, "all-to-all")
    weights_of_a_device = EXPERTS // owners * WIDTH * HIDDEN
    tokens_of_the_owners = (ROWS // 8 * owners if owners > 1 else ROWS) * LENGTH * WIDTH
    assert weights_of_a_device < tokens_of_the_owners
    assert max(gathered) == weights_of_a_device
    assert len(sent) == exchanges


def emulated(
    x: jax.Array,
    out: jax.Array,
    starts: jax.Array,
    sizes: jax.Array,
    places: jax.Array,
    come: jax.Array,
    *,
    axis_name: tuple[str, ...],
) -> jax.Array:
    """`lax.ragged_all_to_all` by its documentation, which XLA:CPU doesn't have; NaN where its arguments disagree."""
    every = lax.all_gather((x, starts, sizes, places), axis_name)
    me, row = lax.axis_index(axis_name), jnp.arange(len(out))
    for x_of, start, size, place in zip(*every, strict=True):
        index = row - place[me]
        sent = x_of.at[start[me] + index].get(mode="fill", fill_value=jnp.nan)
        out = jnp.where(((index >= 0) & (index < size[me]))[:, None], sent, out)
    return jnp.where((every[2][:, me] == come).all(), out, jnp.nan)


def test_the_ragged_exchange_of_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expert_parallel, "fast", lambda *platforms: True)
    monkeypatch.setattr(lax, "ragged_all_to_all", emulated)
    kinds = ("top-2", "one expert takes all")
    found, text = computed.__wrapped__("expert=4", kinds, ROWS)
    assert len(collectives(text, "all-to-all")) == 2 * len(kinds)  # of sizes and of places alone
    for name in kinds:
        same(found[name], outcome("")[0][name], 1e-5)


# ---- in a model -----------------------------------------------------------------------------------------------------


def decoder(*specs: MoE, layers: int = 0) -> Decoder:
    blocks = tuple(Block(mixer=mha(4), ff=spec) for spec in specs)
    return Decoder(vocab=VOCAB, width=WIDTH, layers=layers or len(specs), block=blocks)


def test_a_model_trains_on_a_mesh_as_on_one_device() -> None:
    """Weights, gradients and the optimizer's state of experts lie over their axis."""
    model = decoder(EVERY["top-2"], layers=2)
    assert_sharded_equals_single(model, "fsdp=2,expert=4")
    program, state, _ = one_step(model, "fsdp=2,expert=4")
    expected = PartitionSpec(None, ("expert",), ("fsdp",), None)
    for tree in (state.params, gradients(state), state.opt[0].nu):
        up = _at(tree, "blocks", "0", "ff", "experts", "up", "weight")
        assert up.sharding.is_equivalent_to(NamedSharding(program.layout.mesh, expected), up.ndim)
        assert up.addressable_shards[0].data.size * 8 == up.size


def _at(tree: Any, *path: str) -> Any:
    return functools.reduce(lambda found, name: found[name], path, tree)


REFUSED: list[tuple[Callable[[], MoE], str, Any, str]] = [
    (lambda: EVERY["experts that choose"], "sequence=2", None, "ExpertChoice shares out a row's tokens"),
    (lambda: EVERY["switch with places"], "sequence=2", None, "FixedCapacity shares out .* split it 2 ways"),
    (lambda: moe(SoftmaxTopK(k=1), shared=EVERY["experts that choose"]), "sequence=2", None, "leave sequence= out"),
    (
        lambda: EVERY["top-2"],
        "expert=2",
        ShardingRules(params={"expert": ("expert",)}, activations={"batch": ("data",)}),
        "add 'expert' to the rules' activations of 'batch'",
    ),
    (lambda: moe(SoftmaxTopK(k=1), experts=6), "expert=4", None, "axis 'expert' of size 6 can't be split 4 ways"),
]


@pytest.mark.parametrize(("build", "mesh", "rules", "said"), REFUSED, ids=[said for *_, said in REFUSED])
def test_what_can_not_be_split_is_refused(build: Callable[[], MoE], mesh: str, rules: Any, said: str) -> None:
    spec, where = build(), sharding.layout(mesh, rules)
    with pytest.raises(ShardingError, match=said):
        Block(mixer=mha(4), ff=spec).ff.check_split(where)  # type: ignore[union-attr]
        Program(decoder(spec), TRAINING, where)
