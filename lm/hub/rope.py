"""Rotary positions as a `config.json` says them."""

from __future__ import annotations

from typing import Any

from lm.hub.errors import HubError
from lm.hub.fields import Fields
from lm.nn.rope import LinearScaling, Llama3Scaling, RoPE, RoPEScaling, YaRN


def read(fields: Fields, *, base: float = 10000.0, fraction: float = 1.0, layers: str | None = None) -> RoPE:
    """The newer `rope_parameters`, or `rope_theta` and `rope_scaling`. layers: the kind of layers it is asked for.

    base and fraction: what the family takes where the file leaves them out.
    """
    given: dict[str, Any] = dict(fields("rope_parameters", None) or fields("rope_scaling", None) or {})
    if layers is not None and layers in given:
        given = dict(given[layers])
    fields.skip("rope_parameters", "rope_scaling")
    base = given.pop("rope_theta", None) or fields("rope_theta", base)
    share = given.pop("partial_rotary_factor", None)
    fraction = fields("partial_rotary_factor", fraction) if share is None else share
    kind = given.pop("rope_type", None) or given.pop("type", "default")
    given.pop("type", None)
    return RoPE(base=base, fraction=fraction, scaling=_scaling(kind, given, fields))


def _scaling(kind: str, given: dict[str, Any], fields: Fields) -> RoPEScaling | None:
    original = given.pop("original_max_position_embeddings", None) or fields("original_max_position_embeddings", None)
    length = original or fields("max_position_embeddings", None)
    scaling: RoPEScaling | None
    if kind == "default":
        scaling = None
        given.pop("factor", None)
    elif kind == "linear":
        scaling = LinearScaling(factor=given.pop("factor"))
    elif kind == "llama3":
        scaling = Llama3Scaling(
            factor=given.pop("factor"),
            low_frequency_factor=given.pop("low_freq_factor"),
            high_frequency_factor=given.pop("high_freq_factor"),
            original_length=length,
        )
    elif kind == "yarn":
        scaling = YaRN(
            factor=given.pop("factor"),
            original_length=length,
            beta_fast=given.pop("beta_fast", None) or 32.0,
            beta_slow=given.pop("beta_slow", None) or 1.0,
            attention_factor=given.pop("attention_factor", None),
        )
    else:
        raise HubError(f"{fields.where}: rope_type='{kind}' isn't supported")
    if left := {name: value for name, value in given.items() if value is not None}:
        name, value = next(iter(left.items()))
        raise HubError(f"{fields.where}: {name}={value!r} of rope_type='{kind}' isn't known; it may change the result")
    return scaling


def write(position: RoPE) -> dict[str, Any]:
    """`rope_parameters`."""
    scaling = position.scaling
    given: dict[str, Any] = {"rope_theta": position.base}
    if position.fraction != 1:
        given["partial_rotary_factor"] = position.fraction
    if scaling is None:
        return given | {"rope_type": "default"}
    if isinstance(scaling, LinearScaling):
        return given | {"rope_type": "linear", "factor": scaling.factor}
    if isinstance(scaling, Llama3Scaling):
        return given | {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_frequency_factor,
            "high_freq_factor": scaling.high_frequency_factor,
            "original_max_position_embeddings": scaling.original_length,
        }
    if isinstance(scaling, YaRN):
        return given | {
            "rope_type": "yarn",
            "factor": scaling.factor,
            "original_max_position_embeddings": scaling.original_length,
            "beta_fast": scaling.beta_fast,
            "beta_slow": scaling.beta_slow,
            "attention_factor": scaling.attention_factor,
        }
    raise HubError(f"transformers has no name for {type(scaling).__name__}")
