"""Eight virtual devices against one, for every component there is; rules that don't fit are refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from lm import sharding
from lm.config import ConfigError, dumps, lift, replace
from lm.models import Decoder
from lm.nn import (
    AbsolutePosition,
    Activation,
    Block,
    FeedForward,
    Learned,
    Mixer,
    Norm,
    RelativePosition,
    Residual,
    Sinusoidal,
    mqa,
)
from lm.nn.kernels import cross_entropy
from lm.nn.rope import RoPEScaling
from lm.sharding import MESH_AXES, Layout, ShardingError
from lm.sharding.mesh import _arranged
from lm.sharding.rules import PRESETS
from lm.train.step import Program
from tests.sharding.helper import (
    ROWS,
    TRAINING,
    assert_sharded_equals_single,
    gradients,
    layout,
    one_step,
    rules,
    share_of_one_device,
)
from tests.tiny import BLOCKS, MODELS, VOCAB, packed

NAMES = list(BLOCKS)


def together(names: list[str], **fields: Any) -> Decoder:
    """One decoder with a layer of each of these blocks."""
    return Decoder(vocab=VOCAB, width=16, layers=len(names), block=tuple(BLOCKS[n] for n in names), **fields)


GROUPS = 8  # deeper models than 57 / 8 layers would amplify what rounding does
FORMS: list[dict[str, Any]] = [
    {"position": Learned(length=16), "tied": False},
    {"position": Sinusoidal(), "softcap": 5.0},
    {"embed_scale": None},
]
TOGETHER = [together(NAMES[i::GROUPS], **FORMS[i % len(FORMS)]) for i in range(GROUPS)]
SOME = together(["gqa", "mla", "mamba-2", "moe"])


@pytest.mark.parametrize("index", range(GROUPS))
def test_every_component_is_on_a_mesh_what_it_is_on_one_device(index: int) -> None:
    assert_sharded_equals_single(TOGETHER[index], "fsdp_tp")


@pytest.mark.parametrize("where", ["ddp", "fsdp", "replica=2,data=2,expert=2"])
def test_simpler_meshes(where: str) -> None:
    assert_sharded_equals_single(SOME, where)


def components(kind: type) -> set[type]:
    """The configs of a kind that are part of lm."""
    found = set()
    for cls in kind.__subclasses__():
        if cls.__module__.startswith("lm."):
            is_config = "__dataclass_fields__" in vars(cls)  # others are what several have in common
            found |= components(cls) | ({cls} if is_config else set())
    return found


def test_no_component_is_left_out() -> None:
    text = "".join(map(dumps, TOGETHER))
    for kind in (Mixer, RelativePosition, AbsolutePosition, RoPEScaling, FeedForward, Activation, Norm, Residual):
        missing = {cls.__name__ for cls in components(kind) if f'"type":"{cls.__name__}"' not in text}
        assert components(kind) and not missing, f"{kind.__name__}: add {missing} to tests/tiny.py"


def test_several_steps_of_one_dispatch_on_a_mesh() -> None:
    shape, values = lift(replace(TRAINING, {"steps": 2, "optimizer.learning_rate": 1e-3}))
    found = []
    for where in ("", "fsdp_tp"):
        compiled = Program(MODELS["gqa"], shape, layout(where))
        state, metrics = compiled.advance(compiled.init(0), [packed(rows=ROWS), packed(rows=ROWS, seed=1)], values, 3)
        assert int(state.step) == 2
        found.append((jax.device_get(metrics["loss"]), jax.device_get(state.params)))
    (losses, params), (expected, single) = found
    assert losses[0] != losses[1] and losses[2] == 0
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), params, single)


def test_the_head_in_chunks_on_a_mesh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "LARGE", 1)
    monkeypatch.setattr(cross_entropy, "TOKENS", 4 * ROWS)
    model = replace(MODELS["gqa"], {"vocab": 48})  # its own: programs are kept, and this one is traced differently
    assert_sharded_equals_single(model, "fsdp_tp")


def test_accumulation_and_averages_on_a_mesh() -> None:
    model = replace(MODELS["gqa"], {"layers": 1})
    training = replace(TRAINING, {"accumulate": 2, "ema": 0.9})
    assert_sharded_equals_single(model, "fsdp_tp", training)
    _, parts, metrics = one_step(model, "fsdp_tp", training)
    _, whole, expected = one_step(model, "fsdp_tp")
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradients(parts), gradients(whole))


def test_the_state_is_really_split() -> None:
    model = replace(MODELS["gqa"], {"layers": 1})
    for where, at_most in (("ddp", 1.0), ("fsdp", 0.16), ("fsdp_tp", 0.35)):
        _, state, _ = one_step(model, where)
        for tree in (state.params, state.opt):
            assert share_of_one_device(tree) <= at_most
    _, state, _ = one_step(model, "ddp")
    assert share_of_one_device(state.params) == 1.0


def test_initial_weights_do_not_depend_on_the_mesh() -> None:
    model = replace(MODELS["gqa"], {"layers": 1})
    one, many = (one_step(model, where)[0].init(7).params for where in ("", "fsdp_tp"))
    jax.tree.map(np.testing.assert_array_equal, one, many)


def test_one_key_head_is_on_every_tensor_shard() -> None:
    model = Decoder(vocab=VOCAB, width=16, layers=1, block=Block(mixer=mqa(4)))
    program = one_step(model, "fsdp_tp")[0]
    mixer = program.params_sharding["blocks"]["0"]["mixer"]
    assert mixer["query"]["weight"].spec == PartitionSpec(None, ("fsdp",), ("tensor",), None)
    assert mixer["key"]["weight"].spec == PartitionSpec(None, ("fsdp",), None, None)
    assert_sharded_equals_single(model, "fsdp_tp")


class TestErrors:
    def program(self, mesh: str, chosen: Any = None, **changes: Any) -> Program:
        return Program(replace(MODELS["mha"], changes), TRAINING, sharding.layout(mesh, chosen))

    def test_two_axes_on_one_mesh_axis(self) -> None:
        with pytest.raises(ShardingError, match=r"weight: axes 'mlp' and 'embed' both map to mesh axis 'fsdp'"):
            self.program("fsdp=2", rules(embed=("fsdp",), mlp=("fsdp",)))

    def test_a_size_that_does_not_divide(self) -> None:
        with pytest.raises(ShardingError, match=r"weight: axis 'embed' of size 24 can't be split 5 ways over fsdp"):
            self.program("data=1,fsdp=5", width=24)

    def test_an_axis_that_nothing_has(self) -> None:
        with pytest.raises(ShardingError, match="did you mean 'embed'"):
            self.program("fsdp=2", rules(embd=("fsdp",)))
        with pytest.raises(ShardingError, match="tensor=2: these rules split nothing over it"):
            sharding.layout("fsdp=2,tensor=2", "fsdp")
        with pytest.raises(ConfigError, match="the mesh has the axes replica, stage, data"):
            rules(embed=("fdsp",))

    @pytest.mark.parametrize(
        ("mesh", "chosen", "said"),
        [
            ("fspd=2", None, "did you mean 'fsdp'?"),
            ("data=0", None, "must be of the form data=N"),
            ("data", None, "must be of the form data=N"),
            ("data=9", None, "needs 9 devices, this machine has 8"),
            ("data=2", "fspd", "did you mean 'fsdp'?"),
        ],
    )
    def test_a_mesh_that_can_not_be(self, mesh: str, chosen: Any, said: str) -> None:
        with pytest.raises(ConfigError) as error:
            sharding.layout(mesh, chosen)
        assert said in str(error.value)

    def test_every_process_has_a_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of four, of which this is the first and has all eight devices."""
        monkeypatch.setattr(jax, "process_count", lambda: 4)
        said = "mesh fsdp=2 uses 2 of 8 devices; processes 1, 2, 3 would have none: use all devices, or start fewer"
        with pytest.raises(ConfigError, match=said):
            sharding.layout("fsdp=2")
        assert sharding.layout("fsdp=2", devices=jax.devices()).mesh.size == 2  # as `lm plan` lays them out
        assert sharding.layout().mesh.size == 1  # what a process does by itself

    def test_a_batch_that_can_not_be_split(self) -> None:
        with pytest.raises(ShardingError, match="a batch of 6 rows can't be split over 4 devices"):
            sharding.layout("data=2, fsdp=2").put({"tokens": np.zeros((6, 2), np.int32)})
        with pytest.raises(ShardingError, match="rows of 6 tokens can't be split 4 ways"):
            sharding.layout("sequence=4").put({"tokens": np.zeros((2, 6), np.int32)})


def test_layouts_of_equal_meshes_are_one() -> None:
    assert sharding.layout("fsdp=2") == sharding.layout("fsdp=2", "every")
    assert hash(sharding.layout("fsdp=2")) == hash(sharding.layout("fsdp=2", "every"))
    assert sharding.layout("fsdp=2") != sharding.layout("fsdp=2", "ddp")


def test_every_rule_of_a_preset_is_in_the_default() -> None:
    default = sharding.every()
    for preset in PRESETS.values():
        rules = preset()
        assert rules.params.items() <= default.params.items()
        assert rules.activations.items() <= default.activations.items()


def test_without_rules_for_the_batch_every_device_has_it_all() -> None:
    where = sharding.layout("tensor=2", sharding.ShardingRules(params={"mlp": ("tensor",)}, activations={}))
    assert where.put({"tokens": np.zeros((3, 2))})["tokens"].sharding.is_fully_replicated


@pytest.mark.parametrize("stacked", [False, True])
def test_a_batch_lies_where_its_rows_belong(stacked: bool) -> None:
    where = sharding.layout("data=2,fsdp=2,tensor=2")
    rows = np.arange(24 * (1 + stacked)).reshape(*(2,) * stacked, 8, 3)
    put = where.put({"tokens": rows}, stacked)["tokens"]
    np.testing.assert_array_equal(put, rows)
    assert put.addressable_shards[0].data.shape == (*(2,) * stacked, 2, 3)
    np.testing.assert_array_equal(where.mine({"tokens": rows})["tokens"], rows)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_process_takes_its_own_part_of_a_whole_batch(monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    monkeypatch.setattr(Layout, "share", lambda self: (part, 3))
    rows = np.arange(12).reshape(6, 2)
    np.testing.assert_array_equal(sharding.layout().mine({"tokens": rows})["tokens"], rows[2 * part : 2 * part + 2])


@dataclass(frozen=True)
class Chip:
    """As much of a TPU as laying out a mesh asks for."""

    id: int
    slice_index: int
    coords: tuple[int, int, int]
    core_on_chip: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v5e"
    process_index: int = 0


def test_slices_lie_along_replica() -> None:
    chips = [Chip(i, i // 4, (i % 2, i // 2 % 2, 0)) for i in range(8)]
    laid = _arranged(dict.fromkeys(MESH_AXES, 1) | {"replica": 2, "fsdp": 4}, chips)
    assert laid.shape == (2, 1, 1, 4, 1, 1, 1)
    assert [{chip.slice_index for chip in half.flat} for half in laid] == [{0}, {1}]
    with pytest.raises(ConfigError, match="of 2 slices; give the mesh replica=2"):
        _arranged(dict.fromkeys(MESH_AXES, 1) | {"fsdp": 8}, chips)
