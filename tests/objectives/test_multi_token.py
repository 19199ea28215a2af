"""Several tokens ahead: which targets, what sees what, and what it costs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.config import ConfigError, replace
from lm.models import MTP, Execution
from lm.models.flops import program_flops
from lm.nn import Block, Mask, cross_attention, mha, param
from lm.objectives import MultiToken, NextToken
from tests.objectives.packed import CAUSAL, packed
from tests.tiny import FF, HEADS, made

MODEL = MTP(decoder=CAUSAL, block=Block(mixer=mha(HEADS), ff=FF), modules=2)
GRAPH, PARAMS = made(MODEL)
BATCH = {name: jnp.asarray(x) for name, x in packed(1).items()}


def sums(objective: Any, batch: Any, params: Any = PARAMS) -> Any:
    return objective(param.merge(GRAPH, params), batch, Execution())


def test_the_first_head_is_next_token_prediction():
    ahead, alone = (jax.jit(lambda b, o=o: sums(o, b))(BATCH) for o in (MultiToken(), NextToken()))
    for name in ("nats", "tokens", "correct"):
        assert float(getattr(ahead, name)) == pytest.approx(float(getattr(alone, name)), rel=1e-6)
    extra = sum(float(ahead.watched[f"ahead_{k}"]) for k in (2, 3))
    assert float(ahead.loss) == pytest.approx(float(alone.loss) + 0.3 / 2 * extra, rel=1e-5)


@pytest.mark.parametrize("k", [0, 1])
def test_a_module_says_the_token_it_should_and_sees_none_later(k):
    """Its nats change with the target k + 1 places on, and its hidden states with no token after that of place k."""
    batch = packed(1, rows=2)
    segments, targets = batch["segments"], batch["targets"]
    ids = jnp.asarray(batch["positions"]), jnp.asarray(segments)
    model, length = param.merge(GRAPH, PARAMS), targets.shape[1]

    def parts(targets: jax.Array) -> list[jax.Array]:
        """Hidden states of each module, as functions of the text behind position 0."""
        tokens = jnp.concatenate([jnp.asarray(batch["tokens"][:, :1]), targets[:, :-1]], axis=1)
        h = model.hidden(tokens, *ids).h
        found = []
        for module in range(2):
            later = jnp.pad(targets[:, module:], ((0, 0), (0, module)))
            h = model.ahead(module, h, later, *ids, Execution()).h
            found.append(h)
        return found

    run = jax.jit(parts)
    before = np.asarray(run(jnp.asarray(targets))[k])
    at = 20
    changed = targets.copy()
    changed[0, at] = (changed[0, at] + 1) % 10
    moved = (np.asarray(run(jnp.asarray(changed))[k]) != before).any(-1)[0]
    same = segments[0] == segments[0, at]
    assert moved[at - k] and not moved[: at - k].any()  # targets[at] is the token k + 1 places after position at - k
    assert not moved[~same & (np.arange(length) > at)].any()


def test_targets_stay_in_their_document_and_row():
    batch = packed(2)
    segments, targets, weights = batch["segments"], batch["targets"], batch["weights"]
    model = param.merge(GRAPH, PARAMS)
    found = jax.jit(lambda b: sums(MultiToken(), b).watched)(batch)
    ids = jnp.asarray(batch["positions"]), jnp.asarray(segments)
    h = model.hidden(jnp.asarray(batch["tokens"]), *ids).h
    rows, length = targets.shape
    for k in (0, 1):
        embedded = np.zeros_like(targets)
        embedded[:, : length - k] = targets[:, k:]
        h = model.ahead(k, h, jnp.asarray(embedded), *ids, Execution()).h
        logp = np.asarray(jax.nn.log_softmax(model.decoder.logits(h)))
        total = 0.0
        for r in range(rows):
            for i in range(length - k - 1):
                if segments[r, i] == segments[r, i + k + 1]:
                    total -= weights[r, i + k + 1] * logp[r, i, targets[r, i + k + 1]]
        assert float(found[f"ahead_{k + 2}"]) == pytest.approx(total, rel=1e-4)


def test_every_weight_has_a_gradient():
    grads = jax.jit(jax.grad(lambda p: sums(MultiToken(), BATCH, p).loss))(PARAMS)
    assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(grads))


def test_the_cost_is_the_programs():
    _, params = param.split(nnx.eval_shape(lambda: MODEL.build(rngs=nnx.Rngs(params=0))))
    cost = MODEL.cost(24)
    assert cost.params == sum(x.size for x in jax.tree.leaves(params))
    one = {name: jax.ShapeDtypeStruct((1, 24), jnp.int32) for name in ("tokens", "targets", "positions", "segments")}
    batch = {**one, "weights": jax.ShapeDtypeStruct((1, 24), jnp.float32)}
    found = program_flops(lambda p, b: sums(MultiToken(), b, p).nats, params, batch)
    pairs = 24 * 24 - 24 * 25 // 2  # the program does the masked ones, too: in each layer, twice 2 P for each head
    assert found == cost.flops + 4 * MODEL.width * pairs * 4


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        replace(MODEL, {"modules": 0})
    with pytest.raises(ConfigError, match="nothing for it to read"):
        replace(MODEL, {"block.cross": cross_attention(HEADS)})
    with pytest.raises(ConfigError, match="earlier ones"):
        MultiToken().check(replace(MODEL, {"block.mixer.mask": Mask(causal=False)}), 8)
    with pytest.raises(ConfigError, match="negative"):
        MultiToken(weight=-1.0)
