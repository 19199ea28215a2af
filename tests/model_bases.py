"""Encoders, heads and encoder-decoders, and how `test_no_dead_field` looks at them: cost, program and first weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lm.config import replace
from lm.models import Classifier, Embedding, EncoderDecoder, Headed, MaskedLM, Model
from lm.nn import GELU, LayerNorm, RMSNorm, cross_attention, param
from tests.models.test_encoders import ALBERT, BART, BERT, T5

LENGTH = 8
HEADS = (
    MaskedLM(),
    MaskedLM(tied=False, norm=RMSNorm()),
    Classifier(labels=3, inner=GELU(), inner_norm=LayerNorm()),
    Embedding(),
)
MODELS: tuple[Model, ...] = (
    BERT,
    replace(ALBERT, {"vocab_multiple": 16}),
    T5,
    BART,
    replace(T5, {"decoder.head_bias": True, "decoder.tied": False}),
    *(Headed(body=BERT, head=head) for head in HEADS),
)

HINTS: dict[tuple[str, str], list[Any]] = {
    ("Cross", "attention"): [cross_attention(2).attention],
    ("Encoder", "first"): [(replace(BERT.pattern[0], {"ff": None}),)],
    ("EncoderDecoder", "decoder"): [replace(T5.decoder, {"softcap": 1.0})],
}


def see(model: Any) -> Any:
    def first(seed: jax.Array) -> Any:
        return param.split(model.build(rngs=nnx.Rngs(params=jax.random.key(seed))))[1]

    graph, params = param.split(nnx.eval_shape(lambda: model.build(rngs=nnx.Rngs(params=0))))
    tokens = [jnp.zeros((2, LENGTH), jnp.int32)] * (2 if isinstance(model, EncoderDecoder) else 1)
    program = jax.make_jaxpr(lambda params, *tokens: param.merge(graph, params)(*tokens))(params, *tokens)
    return model.cost(LENGTH), str(program), str(jax.make_jaxpr(first)(0))
