"""State-space and linear-attention mixers against those of transformers, on weights drawn wide."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.hub.plan import nested
from lm.nn import Mixer, RMSNorm, param
from lm.nn.ssm import GatedDeltaNet, GateThenNorm, Mamba, Mamba2, NormThenGate

torch = pytest.importorskip("torch", reason="parity tests need torch: pip install 'lm[parity]'")
transformers = pytest.importorskip("transformers", reason="parity tests need transformers: pip install 'lm[parity]'")

WIDTH, BATCH, LENGTH = 24, 2, 37
State = dict[str, np.ndarray]
Flat = dict[str, np.ndarray]


def drawn(module: Any, seed: int = 0) -> Any:
    """The module in evaluation, every parameter drawn wide: scales around 1, all others around 0."""
    rng = np.random.default_rng(seed)
    for name, value in module.named_parameters():
        noise = rng.normal(size=value.shape)
        wide = 1 + 0.3 * noise if "norm.weight" in name else 0.4 * noise
        value.data = torch.tensor(wide, dtype=torch.float32)
    return module.eval()


def linear(state: State, name: str, parts: dict[str, tuple[int, ...]]) -> Flat:
    """One matrix of theirs as several of ours, by their outputs' shapes, with the biases if there are any."""
    sizes = np.cumsum([int(np.prod(shape)) for shape in parts.values()])[:-1]
    flat: Flat = {}
    for ours, weight in zip(parts, np.split(state[f"{name}.weight"], sizes), strict=True):
        flat[f"{ours}.weight"] = weight.T.reshape(-1, *parts[ours])
    if f"{name}.bias" in state:
        for ours, bias in zip(parts, np.split(state[f"{name}.bias"], sizes), strict=True):
            flat[f"{ours}.bias"] = bias.reshape(parts[ours])
    return flat


def output(state: State, shape: tuple[int, ...]) -> Flat:
    flat = {"out.weight": state["out_proj.weight"].T.reshape(*shape, WIDTH)}
    return flat | ({"out.bias": state["out_proj.bias"]} if "out_proj.bias" in state else {})


def convolutions(state: State, parts: dict[str, tuple[int, ...]]) -> Flat:
    """One depthwise convolution of theirs [C 1 W] as several of ours, [W C]."""
    flat = linear(
        {name: np.squeeze(state[name], 1) if state[name].ndim == 3 else state[name] for name in state}, "conv1d", parts
    )
    return {path.replace("weight", "kernel"): value for path, value in flat.items()}


def agree(spec: Mixer, reference: Any, flat: Flat, segments: np.ndarray | None = None) -> None:
    layer: Any = spec.build(WIDTH, rngs=nnx.Rngs(0))
    graph, shapes = param.split(layer)
    params = nested({path: jnp.asarray(value, jnp.float32) for path, value in flat.items()})  # type: ignore[misc]
    assert {k: v.shape for k, v in _leaves(params)} == {k: v.shape for k, v in _leaves(shapes)}
    x = np.random.default_rng(1).normal(size=(BATCH, LENGTH, WIDTH)).astype(np.float32)
    with torch.no_grad():
        expected = reference(torch.tensor(x)).numpy()
    ones = jnp.ones((BATCH, LENGTH), jnp.int32)
    found, _ = param.merge(graph, params)(jnp.asarray(x), jnp.cumsum(ones, axis=1) - 1, ones)
    assert expected.std() > 0.1 and np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def _leaves(tree: Any, path: str = "") -> list[tuple[str, Any]]:
    if not isinstance(tree, dict):
        return [(path, tree)]
    return sorted(leaf for name, value in tree.items() for leaf in _leaves(value, f"{path}.{name}"))


# ---- Mamba, FalconMamba, Jamba -----------------------------------------------------------------------------


def mamba_weights(state: State, spec: Mamba) -> Flat:
    inner, rank, n = (spec.expand * WIDTH,), (spec.rank(WIDTH),), (spec.state,)
    flat = linear(state, "in_proj", {"inner": inner, "gate": inner})
    flat |= linear(state, "x_proj", {"dt_down": rank, "B": n, "C": n}) | convolutions(state, {"conv": inner})
    flat |= {"dt_up.weight": state["dt_proj.weight"].T, "dt_bias": state["dt_proj.bias"]}
    return flat | {"A_log": state["A_log"], "D": state["D"]} | output(state, inner)


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("chunk", [8, 64])
def test_mamba(biases: bool, chunk: int) -> None:
    from transformers.models.mamba.modeling_mamba import MambaMixer

    config = transformers.MambaConfig(
        hidden_size=WIDTH, state_size=6, conv_kernel=3, expand=2, use_bias=biases, use_conv_bias=biases
    )
    reference = drawn(MambaMixer(config, 0))
    spec = Mamba(state=6, conv=3, bias=biases, conv_bias=biases, chunk=chunk)
    assert spec.rank(WIDTH) == config.time_step_rank
    agree(spec, reference, mamba_weights(numpy(reference), spec))


def test_mamba_of_jamba() -> None:
    from transformers.models.jamba.modeling_jamba import JambaMambaMixer

    config = transformers.JambaConfig(
        hidden_size=WIDTH, mamba_d_state=6, mamba_dt_rank=5, rms_norm_eps=1e-3, mamba_proj_bias=True
    )
    reference = drawn(JambaMambaMixer(config, 0))
    spec = Mamba(state=6, dt_rank=5, bias=True, norm=RMSNorm(epsilon=1e-3))
    state = numpy(reference)
    norms = {f"{ours}_norm.scale": state[f"{ours.lower()}_layernorm.weight"] for ours in ("dt", "B", "C")}
    agree(spec, reference, mamba_weights(state, spec) | norms)


def test_mamba_of_falcon_mamba() -> None:
    """Its norms have no weights."""
    from transformers.models.falcon_mamba.modeling_falcon_mamba import FalconMambaMixer

    config = transformers.FalconMambaConfig(hidden_size=WIDTH, state_size=6, time_step_rank=5, mixer_rms_eps=1e-3)
    reference = drawn(FalconMambaMixer(config, 0, initialize_mixer_weights=False))  # or it looks for what it hasn't yet
    spec = Mamba(state=6, dt_rank=5, norm=RMSNorm(epsilon=1e-3))
    norms = {"dt_norm.scale": np.ones(5), "B_norm.scale": np.ones(6), "C_norm.scale": np.ones(6)}
    agree(spec, reference, mamba_weights(numpy(reference), spec) | norms)


# ---- Mamba-2, Bamba ----------------------------------------------------------------------------------------


def mamba2_weights(state: State, spec: Mamba2) -> Flat:
    heads, groups = (spec.heads, spec.head_width), (spec.groups, spec.state)
    flat = linear(state, "in_proj", {"gate": heads, "x": heads, "B": groups, "C": groups, "dt": (spec.heads,)})
    flat |= convolutions(state, {"x_conv": heads, "B_conv": groups, "C_conv": groups}) | output(state, heads)
    flat |= {name: state[name] for name in ("A_log", "D", "dt_bias")}
    return flat | {"norm.scale": state["norm.weight"].reshape(spec.groups, -1)}


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize(
    ("groups", "chunk", "limits"), [(1, 16, (0.0, None)), (2, 8, (0.3, 0.9)), (4, 64, (0.5, None))]
)
def test_mamba2(biases: bool, groups: int, chunk: int, limits: tuple[float, float | None]) -> None:
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    least, most = limits
    config = transformers.Mamba2Config(
        hidden_size=WIDTH,
        num_heads=4,
        head_dim=12,
        n_groups=groups,
        state_size=6,
        conv_kernel=3,
        chunk_size=16,
        use_bias=biases,
        use_conv_bias=biases,
        time_step_limit=(least, float("inf") if most is None else most),
        layer_norm_epsilon=1e-3,
    )
    reference = drawn(Mamba2Mixer(config, 0))
    spec = Mamba2(
        heads=4,
        head_width=12,
        groups=groups,
        state=6,
        conv=3,
        norm=GateThenNorm(epsilon=1e-3),
        dt_least=least,
        dt_most=most,
        conv_bias=biases,
        bias=biases,
        chunk=chunk,
    )
    agree(spec, reference, mamba2_weights(numpy(reference), spec))


@pytest.mark.parametrize("biases", [False, True])
def test_mamba2_of_bamba(biases: bool) -> None:
    from transformers.models.bamba.modeling_bamba import BambaMixer

    config = transformers.BambaConfig(
        hidden_size=WIDTH,
        mamba_n_heads=6,
        mamba_d_head=8,
        mamba_n_groups=3,
        mamba_d_state=5,
        mamba_chunk_size=16,
        mamba_proj_bias=biases,
        mamba_conv_bias=not biases,
        rms_norm_eps=1e-3,
    )
    reference = drawn(BambaMixer(config, 0))
    norm = GateThenNorm(epsilon=1e-3)
    spec = Mamba2(heads=6, head_width=8, groups=3, state=5, norm=norm, bias=biases, conv_bias=not biases, chunk=16)
    agree(spec, reference, mamba2_weights(numpy(reference), spec))


# ---- gated delta nets of Qwen3-Next ------------------------------------------------------------------------


def delta_weights(state: State, spec: GatedDeltaNet) -> Flat:
    """Theirs are ordered by key head: its query, its key, and the values and gates of the heads that share it."""
    k, n, p, r = spec.key_heads, spec.key_width, spec.value_width, spec.heads // spec.key_heads
    fused = state["in_proj_qkvz.weight"].reshape(k, -1, WIDTH)
    q, key, v, z = np.split(fused, np.cumsum([n, n, r * p]), axis=1)
    beta, dt = np.split(state["in_proj_ba.weight"].reshape(k, -1, WIDTH), 2, axis=1)
    flat = {f"{name}.weight": np.moveaxis(w, -1, 0) for name, w in {"query": q, "key": key}.items()}
    flat |= {
        f"{name}.weight": w.reshape(-1, p, WIDTH).transpose(2, 0, 1) for name, w in {"value": v, "gate": z}.items()
    }
    flat |= {f"{name}.weight": w.reshape(-1, WIDTH).T for name, w in {"beta": beta, "dt": dt}.items()}
    shapes = {"query_conv": (k, n), "key_conv": (k, n), "value_conv": (spec.heads, p)}
    flat |= convolutions(state, shapes) | output(state, (spec.heads, p))
    return flat | {"A_log": state["A_log"], "dt_bias": state["dt_bias"], "norm.scale": state["norm.weight"]}


@pytest.mark.parametrize(("key_heads", "chunk"), [(1, 8), (2, 64), (4, 16)])
def test_gated_delta_net(key_heads: int, chunk: int) -> None:
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    config = transformers.Qwen3NextConfig(
        hidden_size=WIDTH,
        linear_num_key_heads=key_heads,
        linear_num_value_heads=4,
        linear_key_head_dim=6,
        linear_value_head_dim=5,
        linear_conv_kernel_dim=3,
        rms_norm_eps=1e-3,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
    )
    reference = drawn(Qwen3NextGatedDeltaNet(config, 0))
    spec = GatedDeltaNet(
        heads=4,
        key_heads=key_heads,
        key_width=6,
        value_width=5,
        conv=3,
        norm=NormThenGate(epsilon=1e-3),
        chunk=chunk,
    )
    agree(spec, reference, delta_weights(numpy(reference), spec))


def numpy(module: Any) -> State:
    return {name: value.detach().numpy() for name, value in module.named_parameters()}
