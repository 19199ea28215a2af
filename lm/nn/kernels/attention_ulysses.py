"""A row split over devices and read by heads: each device gets whole rows of some heads, and then its tokens back
(DeepSpeed Ulysses, Jacobs et al. 2023, arXiv 2309.14509).

Each token's queries, keys, values and results are sent once, whatever the number of devices, and any kernel serves;
but there are no more devices than query heads. Key heads that are fewer are repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jax import lax

from lm.nn.kernels.attention_blocked import Ids
from lm.nn.kernels.attention_heads import of_heads, read_heads
from lm.nn.kernels.attention_request import Bias
from lm.shapes import Array, Float


def attend(
    axes: tuple[str, ...],
    size: int,
    kernel: Callable[..., Array],
    q_BLHP: Float[Array, "B L H P"],
    k_BSKP: Float[Array, "B S K P"],
    v_BSKP: Float[Array, "B S K V"],
    ids: Ids,
    *,
    bias: Bias | None,
    **told: Any,
) -> Float[Array, "B L H V"]:
    """On one of `size` devices along `axes` of the mesh, for its part of each row; inside `shard_map`.

    kernel: attention of whole rows. Other arguments: `attention.attend`.
    """
    H, K = q_BLHP.shape[2], k_BSKP.shape[2]
    own = H // size
    read = np.concatenate([read_heads(H, K, part * own, own) for part in range(size)])
    if len(read) > K:
        k_BSKP, v_BSKP = k_BSKP[:, :, read], v_BSKP[:, :, read]
    q, k, v = (lax.all_to_all(x, axes, 2, 1, tiled=True) for x in (q_BLHP, k_BSKP, v_BSKP))
    whole = {name: lax.all_gather(x, axes, axis=1, tiled=True) for name, x in ids._asdict().items()}
    mine = None if bias is None else of_heads(bias, axes, own)
    return lax.all_to_all(kernel(q, k, v, **whole, bias=mine, **told), axes, 1, 2, tiled=True)
