"""Replaced-token detection: two models, each with the gradient that is its own."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.config import ConfigError, replace
from lm.models import Electra, Encoder, Execution, Headed, MaskedLM
from lm.models.flops import program_flops
from lm.models.heads import Mean, token_classifier
from lm.nn import Block, Mask, mha, param
from lm.objectives import ReplacedTokens
from tests.objectives.packed import CODEC, SEES_ALL, SIZES, packed, prepare
from tests.tiny import FF, made

NARROW = Encoder(
    vocab=SIZES["vocab"], width=8, layers=1, embed_width=16, block=Block(mixer=mha(2, mask=Mask(causal=False)), ff=FF)
)
WIDE = Encoder(**SIZES, embed_width=16, embed_std=NARROW.width**-0.5, block=SEES_ALL)
MODEL = Electra(
    generator=Headed(body=replace(NARROW, {"embed_std": 8**-0.5}), head=MaskedLM()),
    discriminator=Headed(body=WIDE, head=token_classifier(1)),
)
OBJECTIVE = ReplacedTokens(rate=0.3)
BATCH = {name: jnp.asarray(x) for name, x in prepare(OBJECTIVE, MODEL, packed()).items()}


def loss_of(model: Electra, objective: ReplacedTokens) -> Any:
    graph, params = made(model)
    return (lambda p: objective(param.merge(graph, p), BATCH, Execution()).loss), params


def gradients(model: Electra, weight: float) -> dict[str, float]:
    loss, params = loss_of(model, replace(OBJECTIVE, {"weight": weight}))
    flat, _ = jax.tree_util.tree_flatten_with_path(jax.jit(jax.grad(loss))(params))
    return {jax.tree_util.keystr(path, simple=True, separator="."): float(jnp.abs(g).max()) for path, g in flat}


def test_each_part_learns_its_own_task_and_both_the_shared_table():
    apart = replace(MODEL, {"shared": False})
    both, generator_only = gradients(apart, 50.0), gradients(apart, 0.0)
    for name, size in both.items():
        assert size > 0, name
        if name.startswith("discriminator"):
            assert generator_only[name] == 0, name
        else:  # nothing comes back through the draw
            assert size == pytest.approx(generator_only[name], rel=1e-4), name
    shared = gradients(MODEL, 50.0)
    (table,) = (name for name in shared if name.endswith("body.embedding"))
    assert shared[table] > 2 * gradients(MODEL, 0.0)[table] > 0


def test_the_loss_is_the_papers():
    """Mean over masked tokens of the generator's, and 50 times the mean over all tokens of the discriminator's."""
    graph, params = made(MODEL)
    model = param.merge(graph, params)
    sums = jax.jit(lambda p: OBJECTIVE(param.merge(graph, p), BATCH, Execution()))(params)
    masked = np.asarray(BATCH["weights"]) > 0
    targets = np.asarray(BATCH["targets"])
    logits = model.generator(BATCH["tokens"], BATCH["positions"], BATCH["segments"])
    logp = np.asarray(jax.nn.log_softmax(logits))
    nats = -np.take_along_axis(logp, targets[..., None], -1)[..., 0]
    keys = [jax.random.wrap_key_data(k, impl="threefry2x32") for k in BATCH["key"]]
    drawn = np.stack([np.asarray(jax.random.categorical(k, row)) for k, row in zip(keys, logits, strict=True)])
    read = np.where(masked, drawn, targets)
    said = np.asarray(model.discriminator(jnp.asarray(read), BATCH["positions"], BATCH["segments"]))[..., 0]
    right = np.where(read != targets, 1, -1) * said
    bce = np.log1p(np.exp(-right))
    real = np.asarray(BATCH["segments"]) > 0
    per_row = [masked[r].sum() * bce[r][real[r]].mean() for r in range(len(masked))]
    assert float(sums.loss) == pytest.approx(nats[masked].sum() + 50 * np.sum(per_row), rel=2e-4)
    assert float(sums.nats) == pytest.approx(nats[masked].sum(), rel=2e-4)
    shares = {"replaced": read != targets, "detection_accuracy": (right > 0)}
    for name, x in shares.items():
        wanted = sum(masked[r].sum() * x[r][real[r]].mean() for r in range(len(masked)))
        assert float(sums.watched[name]) == pytest.approx(wanted, rel=1e-5)


def test_the_draw_is_a_rows_own():
    """Half of a batch gives half of the sums: rows don't depend on who is beside them."""
    graph, params = made(MODEL)
    run = jax.jit(lambda p, batch: OBJECTIVE(param.merge(graph, p), batch, Execution()))
    whole = run(params, BATCH)
    halves = [run(params, {name: x[half] for name, x in BATCH.items()}) for half in (slice(0, 2), slice(2, 4))]
    added = jax.tree.map(jnp.add, *halves)
    for a, b in zip(jax.tree.leaves(added), jax.tree.leaves(whole), strict=True):
        assert float(a) == pytest.approx(float(b), rel=1e-4)
    other = {name: jnp.asarray(x) for name, x in prepare(OBJECTIVE, MODEL, packed(), n=1).items()}
    assert (np.asarray(other["key"]) != np.asarray(BATCH["key"])).all()
    assert len(np.unique(np.asarray(BATCH["key"]))) == 8


def test_only_masks_are_replaced():
    assert (np.asarray(BATCH["tokens"])[np.asarray(BATCH["weights"]) > 0] == CODEC.vocab).all()


def test_the_cost_is_the_programs():
    graph, params = param.split(nnx.eval_shape(lambda: MODEL.build(rngs=nnx.Rngs(params=0))))
    assert MODEL.cost(24).params == sum(x.size for x in jax.tree.leaves(params))
    one = jax.ShapeDtypeStruct((1, 24), jnp.int32)

    def both(params: Any, tokens: Any) -> Any:
        model = param.merge(graph, params)
        return model.generator(tokens), model.discriminator(tokens)

    assert program_flops(both, params, one) == MODEL.cost(24).flops


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"generator.head": token_classifier(1)}, "MaskedLM"),
        ({"discriminator.head": token_classifier(2)}, "one number"),
        ({"discriminator.head.pooling": Mean()}, "one number"),
        ({"generator.body.vocab": 50}, "equal"),
        ({"generator.body.embed_width": 8}, "one table"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, said):
    with pytest.raises(ConfigError, match=said):
        replace(MODEL, change)
