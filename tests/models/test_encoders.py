"""Encoders, heads and encoder-decoders: what sees what, what it costs, and that the cached way is the whole way."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.config import ConfigError, replace
from lm.models import (
    Classifier,
    Decoder,
    Embedding,
    Encoder,
    EncoderDecoder,
    Execution,
    First,
    Headed,
    Last,
    MaskedLM,
    Mean,
    Model,
)
from lm.models.flops import program_flops
from lm.models.heads import reward, span, token_classifier
from lm.nn import (
    MLP,
    Block,
    LayerNorm,
    Learned,
    Mask,
    PostNorm,
    ReLU,
    Sinusoidal,
    T5Bias,
    Tanh,
    cross_attention,
    mha,
    mqa,
    param,
)
from tests.tiny import FF, HEADS, LENGTH, VOCAB, WIDTH, made

SEES_ALL = Mask(causal=False)
SIZES: dict[str, Any] = {"vocab": VOCAB, "width": WIDTH, "layers": 2}
BERT_BLOCK = Block(
    mixer=mha(HEADS, position=None, mask=SEES_ALL, bias=True, output_bias=True),
    ff=FF,
    norm=LayerNorm(),
    residual=PostNorm(),
)
BERT = Encoder(**SIZES, block=BERT_BLOCK, position=Learned(length=LENGTH), embed_norm=LayerNorm(), norm=None, types=2)
ALBERT = replace(BERT, {"embed_width": 8, "shared_layers": True, "layers": 3})
T5_ENCODER = Encoder(
    **SIZES,
    block=Block(
        mixer=mha(HEADS, position=T5Bias(buckets=8, max_distance=10, bidirectional=True), mask=SEES_ALL), ff=FF
    ),
)
T5_DECODER = Decoder(
    **SIZES,
    block=Block(
        mixer=mha(HEADS, position=T5Bias(buckets=8, max_distance=10)), ff=FF, cross=cross_attention(HEADS, scale=1.0)
    ),
)
T5 = EncoderDecoder(encoder=T5_ENCODER, decoder=T5_DECODER)
BART = EncoderDecoder(
    encoder=replace(BERT, {"types": 0}),
    decoder=Decoder(
        **SIZES,
        block=Block(
            mixer=mqa(HEADS, position=None, bias=True, output_bias=True),
            cross=cross_attention(HEADS, 2, bias=True, output_bias=True, qk_norm=LayerNorm()),
            ff=MLP(hidden=24, activation=ReLU(), bias=True),
            norm=LayerNorm(),
            residual=PostNorm(),
        ),
        position=Sinusoidal(),
        norm=None,
        head_bias=True,
    ),
    shared=False,
)
ONE_SIDED: dict[str, Model] = {
    "bert": BERT,
    "albert": ALBERT,
    "t5 encoder": T5_ENCODER,
    "masked": Headed(body=BERT, head=MaskedLM()),
    "masked, factorised": Headed(body=ALBERT, head=MaskedLM(norm=None, bias=False)),
    "masked, untied": Headed(body=T5_ENCODER, head=MaskedLM(tied=False)),
    "classifier": Headed(body=BERT, head=Classifier(labels=3, inner=ReLU())),
    "classifier, normed": Headed(
        body=BERT, head=Classifier(labels=3, inner=Tanh(), inner_norm=LayerNorm(), inner_bias=False)
    ),
    "reward": Headed(body=Decoder(**SIZES, block=Block(mixer=mha(HEADS), ff=FF)), head=reward()),
    "tokens": Headed(body=T5_ENCODER, head=token_classifier(5)),
    "span": Headed(body=T5_ENCODER, head=span()),
    "embedding": Headed(body=BERT, head=Embedding()),
}
TWO_SIDED = {"t5": T5, "bart": BART}
rng = np.random.default_rng(0)
TOKENS, TARGETS = (jnp.asarray(rng.integers(0, VOCAB, (2, n))) for n in (LENGTH, 7))


def module(model: Model) -> Any:
    graph, params = made(model)
    return param.merge(graph, params)


def abstract(model: Model) -> tuple[Any, Any]:
    return param.split(nnx.eval_shape(lambda: model.build(rngs=nnx.Rngs(params=0))))


@pytest.mark.parametrize("name", ONE_SIDED)
def test_cost_of_encoders_and_heads(name: str) -> None:
    model = ONE_SIDED[name]
    graph, params = abstract(model)
    cost = model.cost(LENGTH)
    assert cost.params == cost.active == sum(p.size for p in jax.tree.leaves(params))
    tokens = jax.ShapeDtypeStruct((1, LENGTH), jnp.int32)
    masked = 2 * 4 * (LENGTH * (LENGTH - 1) // 2) * WIDTH if name == "reward" else 0
    for layers in ("scan", "unroll"):
        e = Execution(layers=layers)
        assert (
            program_flops(lambda p, t, e=e: param.merge(graph, p)(t, execution=e), params, tokens) - masked
            == cost.flops
        )


@pytest.mark.parametrize("name", TWO_SIDED)
def test_cost_of_encoder_decoders(name: str) -> None:
    model = TWO_SIDED[name]
    graph, params = abstract(model)
    cost = model.cost(LENGTH, 7)
    assert cost.params == cost.active == sum(p.size for p in jax.tree.leaves(params))
    tokens = [jax.ShapeDtypeStruct((1, n), jnp.int32) for n in (LENGTH, 7)]
    found = program_flops(lambda p, *t: param.merge(graph, p)(*t), params, *tokens)
    assert cost.flops == found - 2 * 4 * (7 * 6 // 2) * WIDTH
    built = module(model)
    context = built.decoder.contexts(built.encode(TOKENS), jnp.float32)
    kept = sum(slots.k.size + slots.v.size for slots in context) // 2  # two rows
    assert cost.cache == kept + model.decoder.cost(7).cache + model.encoder.cost(LENGTH).cache


def test_every_token_of_an_encoder_sees_its_document_and_no_other() -> None:
    segments = jnp.asarray([[1] * 5 + [2] * 5 + [0] * 2] * 2)
    for name in ("bert", "albert", "t5 encoder"):
        built = module(ONE_SIDED[name])
        tokens = jnp.arange(LENGTH)[None].repeat(2, axis=0)

        def of(table: jax.Array, built: Any = built, tokens: jax.Array = tokens) -> jax.Array:
            graph, params = param.split(built)
            return jnp.sum(
                param.merge(graph, {**params, "embedding": table})(tokens, segments=segments)[0] ** 3, axis=-1
            )

        reach = np.abs(np.asarray(jax.jacobian(of)(built.embedding[...]))).sum(axis=-1)[:, :LENGTH] > 1e-7
        same = np.asarray(segments[0])[:, None] == np.asarray(segments[0])[None]
        np.testing.assert_array_equal(reach[:10], same[:10])


def test_shared_layers_are_one_layer_repeated() -> None:
    graph, params = made(ALBERT)
    once = replace(ALBERT, {"shared_layers": False})
    repeated = {**params, "blocks": jax.tree.map(lambda p: jnp.repeat(p, 3, axis=0), params["blocks"])}
    expected = param.merge(made(once)[0], repeated)(TOKENS)
    for layers in ("scan", "unroll"):
        found = param.merge(graph, params)(TOKENS, execution=Execution(layers=layers))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.std(expected) > 0.1


def test_a_shared_bias_has_one_table_and_the_gradients_of_all_layers() -> None:
    graph, params = made(T5_ENCODER)
    table = params["blocks"]["0"]["mixer"]["position"]["table"]
    assert table.shape == (1, 8, HEADS)
    own = replace(T5_ENCODER, {"block.mixer.position.shared": False})
    repeated = jax.tree.map(lambda p: p, params)
    repeated["blocks"]["0"]["mixer"]["position"]["table"] = jnp.repeat(table, 2, axis=0)

    def loss(graph: Any, params: Any) -> jax.Array:
        return jnp.sum(jnp.sin(param.merge(graph, params)(TOKENS)))

    graph_own = made(own)[0]
    one, two = jax.grad(lambda p: loss(graph, p))(params), jax.grad(lambda p: loss(graph_own, p))(repeated)
    np.testing.assert_allclose(loss(graph, params), loss(graph_own, repeated), rtol=1e-5)
    tables = [tree["blocks"]["0"]["mixer"]["position"]["table"] for tree in (one, two)]
    np.testing.assert_allclose(tables[0][0], tables[1].sum(axis=0), atol=1e-4)
    assert np.abs(tables[0]).max() > 1e-2


def test_first_blocks_come_before_the_pattern() -> None:
    block, other = Block(mixer=mha(HEADS), ff=FF), Block(mixer=mqa(HEADS), ff=None)
    spec = Decoder(vocab=VOCAB, width=WIDTH, layers=4, first=(other, block), block=(block, other))
    same = Decoder(vocab=VOCAB, width=WIDTH, layers=4, block=(other, block, block, other))
    graph, params = made(spec)
    stacks = params["blocks"]
    order = [stacks["first0"], stacks["first1"], stacks["0"], stacks["1"]]
    renamed = {**params, "blocks": {str(i): one for i, one in enumerate(order)}}
    expected = param.merge(made(same)[0], renamed)(TOKENS)
    np.testing.assert_allclose(param.merge(graph, params)(TOKENS), expected, atol=1e-5)
    assert spec.cost(9) == same.cost(9)
    with pytest.raises(ConfigError, match="2 blocks after 3 first ones doesn't fit layers=4"):
        replace(spec, {"first": (other, other, other)})


@pytest.mark.parametrize("name", TWO_SIDED)
def test_cached_decoding_is_the_whole_decoder(name: str) -> None:
    model = module(TWO_SIDED[name])
    expected = model(TOKENS, TARGETS)
    context = model.encode(TOKENS)
    ready = model.decoder.contexts(context, jnp.float32)
    cache, found = model.decoder.init_cache(2, 7), []
    for i in range(7):
        at = jnp.full((2, 1), i)
        out = model.hidden(TARGETS[:, i : i + 1], at, jnp.ones_like(at), cache, context=ready)
        found.append(model.logits(out.h))
        cache = out.cache
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected, atol=2e-3)
    assert np.std(expected) > 0.1


def test_a_target_reads_its_own_source() -> None:
    model = module(T5)
    sources = jnp.asarray([[1] * 6 + [2] * 6])
    targets = jnp.asarray([[1] * 3 + [2] * 4])
    packed = model(TOKENS[:1], TARGETS[:1], sources, targets)
    for s, t in ((slice(0, 6), slice(0, 3)), (slice(6, 12), slice(3, 7))):
        np.testing.assert_allclose(packed[:, t], model(TOKENS[:1, s], TARGETS[:1, t]), atol=1e-4)


def test_one_table_for_both_is_one_parameter() -> None:
    _, params = made(T5)
    assert "embedding" not in params["decoder"] or "embedding" not in params["encoder"]
    _, apart = made(BART)
    assert "embedding" in apart["decoder"] and "embedding" in apart["encoder"]


def test_pooling_leaves_padding_out() -> None:
    h = jnp.arange(8.0).reshape(1, 4, 2)
    segments = jnp.asarray([[0, 1, 1, 0]])
    for pooling, expected in ((First(), [2, 3]), (Last(), [4, 5]), (Mean(), [3, 4])):
        np.testing.assert_allclose(pooling(h, segments)[0], expected)
    built = module(ONE_SIDED["embedding"])
    np.testing.assert_allclose(jnp.linalg.norm(built(TOKENS), axis=-1), 1, atol=1e-5)


def test_token_types_are_added() -> None:
    built = module(BERT)
    kinds = jnp.zeros_like(TOKENS).at[:, 5:].set(1)
    np.testing.assert_allclose(built(TOKENS, types=jnp.zeros_like(TOKENS)), built(TOKENS), atol=1e-6)
    assert np.abs(built(TOKENS, types=kinds) - built(TOKENS)).max() > 0.1


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="logit_scale and softcap are of the decoder's own head"):
        Headed(body=replace(ONE_SIDED["reward"].body, {"logit_scale": 0.5}), head=reward())  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="knows no token types"):
        module(T5_ENCODER)(TOKENS, types=TOKENS)
    with pytest.raises(ConfigError, match="no block of the decoder reads the encoder"):
        EncoderDecoder(encoder=T5_ENCODER, decoder=replace(T5_DECODER, {"block.cross": None}))
    with pytest.raises(ConfigError, match="nothing for it to read"):
        EncoderDecoder(encoder=replace(T5_ENCODER, {"block.cross": T5_DECODER.pattern[0].cross}), decoder=T5_DECODER)
    with pytest.raises(ConfigError, match="one table"):
        EncoderDecoder(encoder=T5_ENCODER, decoder=replace(T5_DECODER, {"vocab": 9}))
    with pytest.raises(ConfigError, match="use it in an EncoderDecoder"):
        module(T5_DECODER)(TOKENS)
    with pytest.raises(ConfigError, match="sees all of its context"):
        replace(T5_DECODER, {"block.cross.attention.mask.causal": True})
