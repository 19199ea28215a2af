"""What is known about an attention call before it runs; kernels say from it whether they can serve it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lm.errors import UserError
from lm.nn.mask import Mask
from lm.shapes import Array, Float, Int

Bias = Callable[[Int[Array, "B L"], Int[Array, "B S"]], Float[Array, "_ H L S"]]


class KernelError(UserError):
    """A kernel that was asked for by name can't do what the call needs."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The static facts of one call of `attend`."""

    mask: Mask
    dtype: str
    batch: int
    queries: int
    keys: int
    heads: int
    kv_heads: int
    width: int
    value_width: int
    bias: bool
    softcap: float | None
    ordered: bool
