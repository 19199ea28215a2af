"""The names that shapes are declared with: jaxtyping's own, or stand-ins where it isn't installed.

A machine that only computes may have little besides JAX. Nothing reads the declarations there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jax import Array

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
else:
    try:
        from jaxtyping import Bool, Float, Int
    except ImportError:

        class _Declared:
            def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
                return item[0]

        Bool = Float = Int = _Declared

__all__ = ["Array", "Bool", "Float", "Int"]
