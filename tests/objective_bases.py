"""Objectives, their models and samplers, and how `test_no_dead_field` looks at them: data, programs and costs."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lm.config import ConfigError, replace
from lm.infer.diffusion import AnyOrder, Unmasking, unmask
from lm.models import MTP, Electra, Execution, Headed, Model
from lm.models.heads import token_classifier
from lm.nn import LayerNorm, param
from lm.objectives import (
    BlankInfilling,
    Denoiser,
    Denoising,
    DocumentRotation,
    Masked,
    MaskedDiffusion,
    Mixture,
    MultiToken,
    NextToken,
    Objective,
    PrefixLM,
    ReplacedTokens,
    SentencePermutation,
    SpanCorruption,
    TextInfilling,
    TokenDeletion,
    TokenMasking,
    shapes,
)
from tests.objectives.packed import BOTH, CAUSAL, CODEC, ENCODER, MASKED, packed, prepare
from tests.tiny import made

LENGTH = 48
ELECTRA = Electra(generator=MASKED, discriminator=Headed(body=ENCODER, head=token_classifier(1)))
AHEAD = MTP(decoder=CAUSAL, block=CAUSAL.pattern[0])
LEARNERS = (CAUSAL, MASKED, BOTH, ELECTRA, AHEAD)
NOISES = (TokenMasking(), TokenDeletion(), SentencePermutation(), DocumentRotation(), TextInfilling())
SPANS = SpanCorruption(rate=0.3, span=2.0, sentinels=4)
OBJECTIVES: tuple[Objective, ...] = (
    NextToken(),
    Masked(rate=0.4),
    MaskedDiffusion(),
    ReplacedTokens(rate=0.4),
    MultiToken(),
    SPANS,
    PrefixLM(),
    BlankInfilling(rate=0.3, span=4.0, marks=4, documents=2),
    Denoising(noises=NOISES),
    Mixture(parts=(Denoiser(objective=SPANS, mode=0), Denoiser(objective=PrefixLM(), mode=1))),
)
MODELS: tuple[Model, ...] = (ELECTRA, AHEAD)
UNMASKINGS = (Unmasking(steps=4, block=4), Unmasking(steps=4, order=AnyOrder(), temperature=1.0))

HINTS: dict[tuple[str, str], list[Any]] = {
    ("Unmasking", "steps"): [8],
    ("Unmasking", "block"): [2],
    ("Denoising", "noises"): [NOISES[:2]],
    ("Electra", "generator"): [replace(MASKED, {"body.layers": 1})],
    ("Electra", "discriminator"): [replace(ELECTRA.discriminator, {"body.layers": 1})],
    ("MTP", "norm"): [LayerNorm()],
}


def fits(objective: Objective, model: Model) -> bool:
    try:
        objective.check(model, LENGTH)
    except ConfigError:
        return False
    return True


def see(objective: Objective) -> Any:
    """What it makes of packed documents, what that costs, and its loss as a program."""
    model = next(model for model in LEARNERS if fits(objective, model))
    graph, params = made(model)
    batches = [prepare(objective, model, packed(n, rows=6, length=LENGTH), n=n) for n in range(2)]
    lists = [{name: x.tolist() for name, x in batch.items()} for batch in batches]
    loss = lambda p, batch: objective(param.merge(graph, p), batch, Execution())  # noqa: E731
    program = jax.make_jaxpr(loss)(params, shapes(objective, model, 2, LENGTH))
    return objective.extra, objective.cost(model, LENGTH), lists, str(program)


def see_model(model: Model) -> Any:
    """Its cost, first weights and the loss of the objective that is for it."""
    objective = next(each for each in (ReplacedTokens(), MultiToken()) if fits(each, model))
    graph, params = param.split(nnx.eval_shape(lambda: model.build(rngs=nnx.Rngs(params=0))))
    first = jax.make_jaxpr(lambda seed: param.split(model.build(rngs=nnx.Rngs(params=jax.random.key(seed))))[1])(0)
    loss = lambda p, batch: objective(param.merge(graph, p), batch, Execution()).loss  # noqa: E731
    program = jax.make_jaxpr(loss)(params, shapes(objective, model, 2, LENGTH))
    return model.cost(LENGTH), str(first), str(program)


def see_unmasking(how: Unmasking) -> Any:
    prompts = [[3, 1], [1, 5, 9], []]
    return [unmask(MASKED, _params(), prompts, 8, how, mask=CODEC.vocab, seed=seed) for seed in range(2)]


@cache
def _params() -> Any:
    return jax.tree.map(jnp.asarray, made(MASKED)[1])
