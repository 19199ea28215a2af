"""The selective scan of Mamba: a state [N] of its own in every channel, each number with its own decay.

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t        y_t = C_t . h_t        (Gu and Dao 2023, algorithm 2)

Decays differ in channel and state, so a chunk is no product of matrices as in Mamba-2. The [c N D] numbers of a chunk
of c tokens are never kept, and there are never more of them than one chunk's.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from lm.nn.kernels.platform import fast
from lm.nn.ssm.chunks import Body, over_chunks
from lm.shapes import Array, Bool, Float


def selective_scan(
    x_BLD: Float[Array, "B L D"],
    dt_BLD: Float[Array, "B L D"],
    a_ND: Float[Array, "N D"],
    b_BLN: Float[Array, "B L N"],
    c_BLN: Float[Array, "B L N"],
    resets_BL: Bool[Array, "B L"],
    state_BND: Float[Array, "B N D"],
    *,
    chunk: int,
    parallel: bool | None = None,
) -> tuple[Float[Array, "B L D"], Float[Array, "B N D"]]:
    """(y, the state after the last token), in float32. A token with dt 0 leaves the state as it was.

    parallel: True for a scan over all tokens of a chunk in log(chunk) steps, which does about twice the arithmetic;
    False for one token after another; None: the first on accelerators.
    """
    if parallel is None:
        parallel = fast("gpu", "tpu")
    arrays = (dt_BLD, dt_BLD * x_BLD, b_BLN.astype(jnp.float32), c_BLN.astype(jnp.float32), resets_BL)
    return over_chunks(_at_once(a_ND) if parallel else _one_by_one(a_ND), state_BND, arrays, chunk)


def _at_once(a_ND: jax.Array) -> Body:
    def body(state: jax.Array, dt: jax.Array, u: jax.Array, b: jax.Array, c: jax.Array, resets: jax.Array) -> tuple:
        decay_BsND = jnp.exp(dt[:, :, None] * a_ND) * ~resets[..., None, None]
        decay_BsND, h_BsND = lax.associative_scan(_joined, (decay_BsND, u[:, :, None] * b[..., None]), axis=1)
        h_BsND += decay_BsND * state[:, None]
        return h_BsND[:, -1], (h_BsND * c[..., None]).sum(axis=2)

    return body


def _joined(first: tuple[jax.Array, jax.Array], then: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Two steps h -> decay h + added as one."""
    return first[0] * then[0], first[1] * then[0] + then[1]


def _one_by_one(a_ND: jax.Array) -> Body:
    def token(h_BND: jax.Array, now: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        dt, u, b, c, resets = now
        h_BND = jnp.exp(dt[:, None] * a_ND) * ~resets[:, None, None] * h_BND + u[:, None] * b[..., None]
        return h_BND, (h_BND * c[..., None]).sum(axis=1)

    def body(state: jax.Array, *parts: jax.Array) -> tuple[jax.Array, jax.Array]:
        state, y = lax.scan(token, state, tuple(part.swapaxes(0, 1) for part in parts))
        return state, y.swapaxes(0, 1)

    return body
