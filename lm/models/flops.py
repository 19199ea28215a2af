"""Matrix-multiplication FLOPs of a program, counted in its jaxpr: what the cost model is held against.

XLA's own `cost_analysis` counts the body of a scan once, however often it runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def program_flops(function: Callable[..., Any], *args: Any) -> int:
    """2 m n k for every matrix product that `function(*args)` does; arguments may be abstract.

    The body of a scan counts as often as it runs, of a branch the dearest counts, recomputation counts. Raises
    ValueError for a while loop with a product inside, since how often it runs is not known.
    """
    return _flops(jax.make_jaxpr(function)(*args).jaxpr)


def _flops(jaxpr: Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name, inner = equation.primitive.name, [_flops(j) for j in _inner(equation.params)]
        if name == "dot_general":
            total += _product(equation)
        elif name == "ragged_dot_general":
            total += _ragged(equation)
        elif name == "scan":
            total += equation.params["length"] * sum(inner)
        elif name == "cond":
            total += max(inner)
        elif name == "while" and any(inner):
            raise ValueError("a while loop does matrix products an unknown number of times; use a scan")
        else:
            total += sum(inner)
    return total


def _product(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)


def _ragged(equation: Any) -> int:
    """A grouped product: each row, or where rows are summed over each of them, meets the matrix of one group."""
    numbers = equation.params["ragged_dot_dimension_numbers"]
    (contracted, _), _ = numbers.dot_dimension_numbers
    left, groups = equation.invars[0].aval.shape, equation.invars[2].aval.shape[-1]
    flops = 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)
    return flops // groups if numbers.lhs_ragged_dimensions[0] in contracted else flops


def _inner(params: dict[str, Any]) -> Iterator[Jaxpr]:
    """The jaxprs an equation calls."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item
