"""Training with 8-bit products learns what training with native ones does."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import pytest

pytest.importorskip("qwix", reason="8-bit products need qwix: pip install 'lm[low_precision]'")

from lm.config import lift, replace
from lm.models import Execution
from lm.sharding import layout
from lm.train import AdamW, Constant, Training
from lm.train.step import Program
from tests.tiny import MODELS, packed

STEPS = 30
MODEL = replace(MODELS["gqa"], {"layers": 1})


@functools.cache
def losses(products: Any) -> np.ndarray:
    """Of every step on one batch."""
    execution = Execution(products=products)
    optimizer = AdamW(learning_rate=3e-3)
    shape, values = lift(Training(steps=STEPS, optimizer=optimizer, schedule=Constant(), execution=execution))
    program = Program(MODEL, shape, layout())
    state, found = program.init(0), []
    for _ in range(STEPS):
        state, metrics = program.step(state, program.layout.put(packed(rows=4)), values)
        found.append(float(metrics["loss"]))
    return np.asarray(found)


@pytest.mark.parametrize(("products", "at_first"), [("int8", 0.01), ("fp8", 0.05)])  # 8 bits' steps, and 4 bits'
def test_the_loss_falls_as_with_native_products(products: Any, at_first: float) -> None:
    native, found = losses("native"), losses(products)
    assert native[-1] < 0.8 * native[0]
    assert found[0] != native[0]
    off = np.abs(found - native)
    assert off[0] < at_first and off.max() < 0.05 * (native[0] - native[-1]), off


def test_what_is_looked_at_is_of_native_products() -> None:
    """So the held-out loss is that of the weights as they are used, whatever they were trained with."""
    shape, values = lift(Training(steps=STEPS, execution=Execution(products="int8")))
    program = Program(MODEL, shape, layout())
    state, batch = program.abstract_state(), packed(rows=4)
    assert "i8[" in str(jax.make_jaxpr(program._step)(state, batch, values))
    assert "i8[" not in str(jax.make_jaxpr(program._evaluate)(state.params, batch, values))


def test_runs_side_by_side() -> None:
    """`vmap` over runs gives each its own scales."""
    from lm.nn.kernels.low_precision import product

    x, w = (jax.random.normal(jax.random.key(i), (3, 8, 8)) * 10.0 ** np.arange(3)[:, None, None] for i in range(2))
    both = jax.vmap(lambda x, w: product("int8", x, w))(x, w)
    np.testing.assert_array_equal(both, np.stack([product("int8", x[i], w[i]) for i in range(3)]))
