"""Rotary positions as a `config.json` says them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lm.config import replace
from lm.hub.errors import HubError
from lm.hub.family import Unfit
from lm.hub.fields import Fields
from lm.nn.rope import DynamicNTK, LinearScaling, Llama3Scaling, LongRoPE, RoPE, RoPEScaling, YaRN


def read(
    fields: Fields,
    *,
    base: float = 10000.0,
    fraction: float | None = None,
    layers: str | None = None,
    original: int | None = None,
    scored: bool = False,
) -> RoPE:
    """The newer `rope_parameters`, or `rope_theta` and `rope_scaling`. layers: the kind of layers it is asked for.

    base, fraction and original (original_max_position_embeddings): what the family takes where the file leaves them
    out. fraction None: its heads are always turned whole (transformers doesn't look at that field then). scored:
    YaRN's mscale_all_dim also multiplies its scores.
    """
    given: dict[str, Any] = dict(fields("rope_scaling", None) or fields("rope_parameters", None) or {})
    if layers is not None and layers in given:
        given = dict(given[layers])
    fields.skip("rope_parameters", "rope_scaling", "max_position_embeddings", "original_max_position_embeddings")
    fields.skip("rope_theta", "partial_rotary_factor")  # what is inside goes before them
    base = given.pop("rope_theta", None) or fields("rope_theta", base)
    share = given.pop("partial_rotary_factor", None)
    found = fields("partial_rotary_factor", 1.0 if fraction is None else fraction) if share is None else share
    if fraction is None and found != 1:
        raise HubError(f"{fields.where}: partial_rotary_factor={found} isn't supported for {fields.type}, only 1.0")
    old = given.pop("type", None)
    kind = given.pop("rope_type", None) or old or "default"
    if kind not in KINDS:
        raise HubError(f"{fields.where}: rope_type='{kind}' isn't supported, only {', '.join(KINDS)}")
    scaling = KINDS[kind](Given(given, fields, original, scored))
    if left := {name: value for name, value in given.items() if value is not None}:
        name, value = next(iter(left.items()))
        raise HubError(f"{fields.where}: {name}={value!r} of rope_type='{kind}' isn't known; it may change the result")
    return RoPE(base=base, fraction=found, scaling=scaling)


class Given:
    """The parameters of one kind; each is taken out as it is read."""

    def __init__(self, given: dict[str, Any], fields: Fields, original: int | None, scored: bool):
        self._given, self.fields, self._original, self.scored = given, fields, original, scored

    def __call__(self, name: str, default: Any = None) -> Any:
        value = self._given.pop(name, None)
        return default if value is None else value

    def factor(self, original: int) -> float:
        return self("factor") or self.fields("max_position_embeddings") / original

    def original_length(self) -> int:
        """Of the texts it was trained on first; a field outside goes before one inside."""
        inside = self("original_max_position_embeddings")
        outside = self.fields("original_max_position_embeddings", self._original)
        return outside or inside or self.fields("max_position_embeddings")


def _yarn(given: Given) -> YaRN:
    """mscale and mscale_all_dim set the factor of rotated vectors, and where `scored` says so that of the scores."""
    original = given.original_length()
    given("finetuned")  # of the first YaRN models; nothing reads it
    mscale, all_dim = given("mscale"), given("mscale_all_dim")
    scales: dict[str, Any] = {"attention_factor": given("attention_factor")}
    plain = YaRN(
        factor=given.factor(original),
        original_length=original,
        beta_fast=given("beta_fast") or 32.0,
        beta_slow=given("beta_slow") or 1.0,
        truncate=given("truncate", True),
    )
    if given.scored:
        both = {"mscale": mscale, "mscale_all_dim": all_dim} if mscale and all_dim else {}
        scales |= {"mscale": 1.0, "mscale_all_dim": all_dim or 0.0} | both
        if all_dim and not mscale and scales["attention_factor"] is None:
            scales["attention_factor"] = plain.magnitude()
    elif mscale and all_dim and scales["attention_factor"] is None:
        scales["attention_factor"] = replace(plain, {"mscale": mscale, "mscale_all_dim": all_dim}).magnitude()
    return replace(plain, scales)


def _long(given: Given) -> LongRoPE:
    original = given.original_length()
    return LongRoPE(
        short=tuple(given("short_factor")),
        long=tuple(given("long_factor")),
        factor=given.factor(original),
        original_length=original,
        attention_factor=given("attention_factor"),
    )


def _llama3(given: Given) -> Llama3Scaling:
    return Llama3Scaling(
        factor=given("factor"),
        low_frequency_factor=given("low_freq_factor"),
        high_frequency_factor=given("high_freq_factor"),
        original_length=given.original_length(),
    )


def _dynamic(given: Given) -> DynamicNTK:
    given("original_max_position_embeddings")  # this kind goes by the other field
    return DynamicNTK(factor=given("factor"), original_length=given.fields("max_position_embeddings"))


def _default(given: Given) -> None:
    given("factor")


KINDS: dict[str, Callable[[Given], RoPEScaling | None]] = {
    "default": _default,
    "linear": lambda given: LinearScaling(factor=given("factor")),
    "dynamic": _dynamic,
    "yarn": _yarn,
    "longrope": _long,
    "su": _long,
    "llama3": _llama3,
}


def write(position: RoPE) -> dict[str, Any]:
    """`rope_parameters`."""
    scaling = position.scaling
    given: dict[str, Any] = {"rope_theta": position.base}
    if position.fraction != 1:
        given["partial_rotary_factor"] = position.fraction
    match scaling:
        case None:
            return given | {"rope_type": "default"}
        case LinearScaling(factor=factor):
            return given | {"rope_type": "linear", "factor": factor}
        case DynamicNTK(factor=factor):
            return given | {"rope_type": "dynamic", "factor": factor}
        case Llama3Scaling():
            more = {
                "rope_type": "llama3",
                "low_freq_factor": scaling.low_frequency_factor,
                "high_freq_factor": scaling.high_frequency_factor,
            }
        case YaRN():
            more = {
                "rope_type": "yarn",
                "beta_fast": scaling.beta_fast,
                "beta_slow": scaling.beta_slow,
                "attention_factor": scaling.attention_factor,
                "truncate": scaling.truncate,
            }
            if scaling.mscale_all_dim:
                more |= {"mscale": scaling.mscale, "mscale_all_dim": scaling.mscale_all_dim}
        case LongRoPE():
            more = {
                "rope_type": "longrope",
                "short_factor": list(scaling.short),
                "long_factor": list(scaling.long),
                "attention_factor": scaling.attention_factor,
            }
        case _:
            raise Unfit(f"transformers has no name for {type(scaling).__name__}")
    return given | {"factor": scaling.factor, "original_max_position_embeddings": scaling.original_length} | more


def write_length(position: RoPE) -> dict[str, Any]:
    """`max_position_embeddings`, for kinds of scaling that go by it."""
    scaling = position.scaling
    return {"max_position_embeddings": scaling.original_length} if isinstance(scaling, DynamicNTK) else {}
