"""What heads do: how far each is an induction head, a previous-token head, a copying one, or looks at everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.config import ConfigError, config
from lm.data import Source
from lm.data.synthetic.task import MARK, uniforms
from lm.errors import UserError
from lm.interpret.patterns import attention_patterns, watched
from lm.models.decoder import DecoderModel, as_decoder
from lm.nn.attention import Attention, AttentionLayer
from lm.nn.mask import Mask
from lm.shapes import Array, Float, Int
from lm.train.measure import Found, Look, Measure

if TYPE_CHECKING:
    from lm.train.step import Program

CAUSAL = Mask()


def prefix_matching(pattern: Float[Array, "B H L S"], tokens: Int[Array, "B L"]) -> Float[Array, " H"]:
    """How much a head reads of the tokens that followed earlier occurrences of the token it stands at: their sum, as a
    mean over all tokens that occurred before in their row (Olsson et al. 2022, "In-context learning and induction
    heads"). 1 is a perfect induction head; NaN where no token occurs twice. Each row is one document."""
    earlier = jnp.tril(tokens[:, :, None] == tokens[:, None, :], k=-1)
    followed = jnp.pad(earlier[:, :, :-1], ((0, 0), (0, 0), (1, 0)))
    read = jnp.einsum("BHLS,BLS->BHL", pattern, followed.astype(pattern.dtype))
    known = earlier.any(-1)
    return jnp.einsum("BHL,BL->H", read, known.astype(pattern.dtype)) / known.sum()


def previous_token(pattern: Float[Array, "B H L S"]) -> Float[Array, " H"]:
    """How much a head reads of the token just before, as a mean over all tokens that have one. Each row is one
    document."""
    return jnp.diagonal(pattern, offset=-1, axis1=2, axis2=3).mean((0, 2))


def entropy(pattern: Float[Array, "B H L S"], mask: Mask = CAUSAL) -> Float[Array, " H"]:
    """How widely a head reads: the entropy (nats) of what it reads at a token, divided by the logarithm of the number
    of keys that `mask` lets it see: 1 is uniform, 0 a single key. The mean over all queries that see several keys; NaN
    where none does. Each row is one document."""
    at = jnp.arange(pattern.shape[-1])[None]
    keys = mask.allowed(at, at, jnp.ones_like(at), jnp.ones_like(at))[0].sum(-1)
    nats = jax.scipy.special.entr(pattern).sum(-1).mean(0)
    several = keys > 1
    return jnp.where(several, nats / jnp.log(jnp.maximum(keys, 2)), 0).sum(-1) / several.sum()


def copying(model: DecoderModel, tokens: Int[Array, " T"]) -> list[Float[Array, " H"] | None]:
    """Of each head of each layer, the share of `tokens` that it would copy: of all logits it raises most that of the
    token it reads (after Olsson et al. 2022, and the OV circuit of Elhage et al. 2021); None for a layer without heads.

    From the weights alone: the token's embedding, without a position, through the norms before the mixer, the head's
    value and output matrices, the final norm and the output head. Left out are the biases of values and outputs and a
    norm between mixer and stream (PostNorm, Sandwich); of the final norm its bias. That norm divides by the size of
    what this head writes, not of the whole stream, which changes no logit's rank; nor would the logits' softcap.
    """
    x = model.embedding[...][tokens][:, None]  # each token is a row of its own
    positions, segments = jnp.zeros_like(tokens)[:, None], jnp.ones_like(tokens)[:, None]
    found = []
    for block in model.layers():
        mixer = block.mixer
        if isinstance(mixer, AttentionLayer):
            read, _ = watched(block, x, positions, segments)
            found.append(_copied(model, mixer, read[:, 0], tokens))
        else:
            found.append(None)
    return found


def _copied(
    model: DecoderModel, mixer: AttentionLayer, read_TD: Float[Array, "T D"], tokens: Int[Array, " T"]
) -> Float[Array, " H"]:
    group = mixer.spec.heads // mixer.spec.kv_heads
    values_KTP = jnp.einsum("TD,DKP->KTP", read_TD, mixer.value.weight[...])
    head_VD = model.head()[: model.spec.vocab]
    nothing = model.finish(jnp.zeros_like(read_TD[None, :1]))

    def one(head: tuple[jax.Array, jax.Array]) -> jax.Array:
        value_TP, out_PD = head
        written = model.finish((value_TP @ out_PD)[None]) - nothing
        logits = jnp.einsum("BTD,VD->BTV", written, head_VD, preferred_element_type=jnp.float32)
        return jnp.mean(jnp.argmax(logits[0], axis=-1) == tokens)

    # head after head: the logits of all of them would be large
    return jax.lax.map(one, (jnp.repeat(values_KTP, group, axis=0), mixer.out.weight[...]))


@config
class Heads(Measure):
    """What the heads do on `rows` rows of MARK and two times the same block of `length` different random tokens, of
    tokens 1 to `symbols` (None: all of the model's vocabulary).

    prefix_matching, previous_token, copying (of the rows' tokens): those of the head that has most of it. entropy: the
    mean over all heads that see several keys; see the functions of these names. In full they are lists [layer][head],
    None for a layer without heads, or where a score isn't defined.
    """

    name: str = "heads"
    rows: int = 32
    length: int = 16
    symbols: int | None = None

    def __post_init__(self) -> None:
        if self.rows < 1 or self.length < 2:
            raise ConfigError(f"rows={self.rows} must be at least 1, length={self.length} at least 2")

    def prepare(self, program: Program, data: Source) -> Look:
        model = as_decoder(program.model, f"measure {self.name}")
        if not any(isinstance(block.mixer, Attention) for block in model.pattern):
            raise UserError(f"measure {self.name}: this model has no layer of attention, and so no heads")
        tokens = self.tokens(model.vocab)
        try:
            model.check_context(tokens.shape[1])
        except ConfigError as error:
            raise UserError(f"measure {self.name}: {error}: 1 + 2 x length={self.length}; lower length") from None
        occurring, compiled = np.unique(tokens[:, 1:]), program.apply(_scores)

        def look(params: Any) -> Found:
            layers = [
                None if scores is None else jax.device_get(scores) for scores in compiled(params, tokens, occurring)
            ]
            present = [scores for scores in layers if scores is not None]
            every = {name: np.concatenate([scores[name] for scores in present]) for name in present[0]}
            numbers = {name: float(x.max()) for name, x in every.items() if name != "entropy"}
            defined = every["entropy"][~np.isnan(every["entropy"])]
            if len(defined):
                numbers["entropy"] = float(defined.mean())
            lists = {name: [None if scores is None else _list(scores[name]) for scores in layers] for name in every}
            return Found(numbers, lists)

        return look

    def tokens(self, vocab: int) -> np.ndarray:
        """The rows [rows, 1 + 2 length] for a model of so many tokens, the same for every run. Raises UserError where
        there aren't enough of them."""
        symbols = vocab - 1 if self.symbols is None else self.symbols
        if symbols >= vocab:
            raise UserError(
                f"measure {self.name}: symbols={symbols} besides the mark, but the model has {vocab} tokens in all; "
                f"lower symbols to {vocab - 1} or less"
            )
        if symbols < self.length:
            raise UserError(
                f"measure {self.name}: a block of length={self.length} different tokens can't be made of {symbols}; "
                "lower length"
            )
        block = 1 + np.argsort(uniforms(0, 0, 0, self.rows, symbols), axis=1, kind="stable")[:, : self.length]
        mark = np.full((self.rows, 1), MARK)
        return np.concatenate([mark, block, block], axis=1).astype(np.int32)


def _scores(model: DecoderModel, tokens: jax.Array, occurring: jax.Array) -> list[dict[str, jax.Array] | None]:
    """Of each layer by name, for each head."""
    found = []
    layers = zip(model.layers(), attention_patterns(model, tokens), copying(model, occurring), strict=True)
    for block, pattern, copied in layers:
        if not isinstance(block.mixer, AttentionLayer):
            found.append(None)
            continue
        assert pattern is not None and copied is not None
        found.append(
            {
                "prefix_matching": prefix_matching(pattern, tokens),
                "previous_token": previous_token(pattern),
                "copying": copied,
                "entropy": entropy(pattern, block.mixer.spec.mask),
            }
        )
    return found


def _list(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(x) else float(x) for x in values]
