"""Checkpoints: the same bits back, on other shardings too; damage is an error that names what is left."""

import logging
import os
import resource
import shutil
from collections import namedtuple
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lm.train.checkpoint import CheckpointError, Checkpoints
from lm.train.optimizers import Muon

pytestmark = pytest.mark.core

Pair = namedtuple("Pair", ["first", "second"])


def make_state(seed: int = 0):
    rng = np.random.default_rng(seed)
    params = {"block": {"up": jnp.asarray(rng.normal(size=(64, 32)), jnp.float32)}, "norm": jnp.ones(8) * seed}
    optimizer = Muon().make(0.0, {"block": {"up": ("embed", "mlp")}, "norm": ("embed",)}).init(params)
    half = jnp.asarray(rng.normal(size=8), jnp.bfloat16)
    return {"params": params, "optimizer": optimizer, "pair": Pair(jnp.int32(seed), half), "nothing": ()}


def same_bits(a, b) -> bool:
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Path:
    """A folder with complete checkpoints of steps 10, 20 and 30."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with Checkpoints(folder, keep=3) as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(step, make_state(step), config=f'{{"step": {step}}}')
    return folder


@pytest.fixture
def copy(three, tmp_path) -> Path:
    return shutil.copytree(three, tmp_path / "copy")


def test_the_same_bits_come_back(three):
    with Checkpoints(three, keep=3) as checkpoints:
        assert checkpoints.steps() == (10, 20, 30) and checkpoints.latest() == 30
        assert same_bits(checkpoints.restore(jax.eval_shape(make_state)), make_state(30))
        assert same_bits(checkpoints.restore(make_state(), step=10), make_state(10))
        assert checkpoints.config() == '{"step": 30}' and checkpoints.config(10) == '{"step": 10}'


def test_restores_onto_other_shardings_and_saves_from_them(three, tmp_path):
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))

    def place(leaf):
        spec = P("data", "model") if leaf.ndim == 2 else P("data") if leaf.shape == (8,) else P()
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    abstract = jax.tree.map(place, jax.eval_shape(make_state))
    with Checkpoints(three, keep=3) as checkpoints:
        sharded = checkpoints.restore(abstract)
    assert same_bits(sharded, make_state(30))
    assert sharded["params"]["block"]["up"].sharding == abstract["params"]["block"]["up"].sharding
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, sharded)
        assert same_bits(checkpoints.restore(jax.eval_shape(make_state)), make_state(30))


def test_part_of_a_state_can_be_read(three):
    abstract = {"params": jax.eval_shape(make_state)["params"]}
    with Checkpoints(three, keep=3) as checkpoints:
        assert same_bits(checkpoints.restore(abstract, partial=True), {"params": make_state(30)["params"]})
        with pytest.raises(CheckpointError, match=r"it has 'optimizer.*more"):
            checkpoints.restore(abstract)


def test_numbers_can_be_read_as_another_type(three):
    """Floating-point ones, if that is asked for; a count stays what it is."""
    whole = jax.eval_shape(make_state)
    half = jax.tree.map(lambda x: x.update(dtype=jnp.bfloat16) if x.dtype == jnp.float32 else x, whole)
    with Checkpoints(three, keep=3) as checkpoints:
        rounded = jax.tree.map(lambda x, as_: x.astype(as_.dtype), make_state(30), half)
        assert same_bits(checkpoints.restore(half, cast=True), rounded)
        with pytest.raises(CheckpointError, match=r"float32\[8\] there and bfloat16\[8\] here"):
            checkpoints.restore({"params": {"norm": half["params"]["norm"]}}, partial=True)
        count = whole["pair"]._replace(first=jax.ShapeDtypeStruct((), jnp.float32))
        with pytest.raises(CheckpointError, match=r"int32\[\] there and float32\[\] here"):
            checkpoints.restore({"pair": count}, partial=True, cast=True)


def test_another_model_is_an_error_that_names_the_array(three):
    state = make_state()
    state["params"]["norm"] = jnp.ones(9)
    with Checkpoints(three, keep=3) as checkpoints:
        with pytest.raises(CheckpointError, match=r"'params.norm' is float32\[8\] there and float32\[9\] here"):
            checkpoints.restore(state)
        with pytest.raises(CheckpointError, match="no checkpoint of step 25"):
            checkpoints.restore(state, step=25)


def test_saved_arrays_may_be_donated_at_once(tmp_path):
    bump = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    state = {f"w{i}": jnp.full(200_000, float(i)) for i in range(4)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        for _ in range(10):
            state = bump(state)
        jax.block_until_ready(state)
        saved = checkpoints.restore(state)
    assert all(np.all(np.asarray(saved[f"w{i}"]) == i) for i in range(4))


def test_keeps_the_latest_and_forgets_what_will_be_done_again(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest() is None
        with pytest.raises(CheckpointError, match="no checkpoint in"):
            checkpoints.restore(make_state())
        for step in (1, 2, 3):
            checkpoints.save(step, make_state(step))
        assert checkpoints.steps() == (2, 3)
        checkpoints.save(3, make_state(0))  # there already
        assert same_bits(checkpoints.restore(make_state()), make_state(3))
        checkpoints.truncate_after(2)
        assert checkpoints.steps() == (2,)
        with pytest.raises(CheckpointError, match="truncate_after"):
            checkpoints.save(1, make_state())
        checkpoints.save(3, make_state(4))
        assert same_bits(checkpoints.restore(make_state()), make_state(4))


def find(step: Path, name: str) -> Path:
    """A file of a checkpoint; "arrays" is the one that holds the values."""
    if name == "arrays":
        return max(step.rglob("d/*"), key=lambda path: path.stat().st_size)
    return step / name


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # one line, no pages
@pytest.mark.parametrize(
    ("harm", "listed"),
    [(cut, True), (Path.unlink, True), (flip, True), (cut, False), (Path.unlink, False)],
    ids=["cut", "missing", "flipped", "cut, no list", "missing, no list"],
)
@pytest.mark.parametrize("name", ["arrays", "default/manifest.ocdbt", "_CHECKPOINT_METADATA"])
def test_damage_is_an_error_that_names_the_intact_step(copy, name, harm, listed):
    if not listed:
        for listing in copy.glob("*/files.json"):
            listing.unlink()
    harm(find(copy / "30", name))
    with Checkpoints(copy, keep=3) as checkpoints:
        with pytest.raises(CheckpointError) as caught:
            checkpoints.restore(make_state())
        message = str(caught.value)
        assert "step 30" in message and message.endswith(f"step 20 is intact: delete {copy / '30'} to continue from it")
        assert "\n" not in message
    shutil.rmtree(copy / "30")
    with Checkpoints(copy, keep=3) as checkpoints:
        assert same_bits(checkpoints.restore(make_state()), make_state(20))


def test_much_damage_says_what_is_left(copy):
    def message(step=None) -> str:
        with Checkpoints(copy, keep=3) as checkpoints, pytest.raises(CheckpointError) as caught:
            checkpoints.restore(make_state(), step)
        return str(caught.value)

    for step in (20, 30):
        cut(find(copy / str(step), "arrays"))
    assert message().endswith(f"step 10 is intact: delete {copy / '20'} and {copy / '30'} to continue from it")
    cut(find(copy / "10", "arrays"))
    assert message().endswith(f"no older step is intact: delete {copy} to start over")
    assert message(20).endswith("no older step is intact")  # a newer one may be whole


def test_an_unfinished_checkpoint_doesnt_count(copy):
    unfinished = copy / "40.orbax-checkpoint-tmp"
    (unfinished / "default").mkdir(parents=True)
    with Checkpoints(copy, keep=3) as reader:
        assert reader.latest() == 30 and reader.config(10) == '{"step": 10}'
        assert unfinished.exists()  # it may be another process's, at work on it
    with Checkpoints(copy, keep=3) as writer:
        writer.save(50, make_state(50))
        assert writer.steps() == (20, 30, 50) and not unfinished.exists()


def test_a_failed_write_is_one_clear_error_and_costs_nothing_older(copy, caplog):
    big = {"w": jnp.asarray(np.random.default_rng(0).normal(size=100_000))}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(copy, keep=1) as checkpoints:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # the kernel refuses the rest of the file
        try:
            checkpoints.save(40, big)
            with pytest.raises(CheckpointError, match=r"step 40 .*File too large; the last good one is of step 30"):
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert checkpoints.steps() == (10, 20, 30) and not list(copy.glob("40*"))
        assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
        checkpoints.save(41, big)
        assert checkpoints.steps() == (41,)


@pytest.mark.parametrize(("number", "words"), [(28, "disk is full"), (13, "no permission"), (30, "no permission")])
def test_disk_full_and_no_permission_are_said_plainly(tmp_path, monkeypatch, number, words):
    with Checkpoints(tmp_path) as checkpoints:

        def refuse(*_, **__):
            raise ValueError(f"Failed to write to file 7: something [os_error_code='{number}']\nmore")

        monkeypatch.setattr(checkpoints._manager, "save", refuse)
        with pytest.raises(CheckpointError, match=words):
            checkpoints.save(1, make_state())


def test_a_folder_that_cant_be(tmp_path):
    (tmp_path / "file").write_text("")
    with Checkpoints(tmp_path / "file" / "checkpoints") as checkpoints:
        assert checkpoints.latest() is None
        with pytest.raises(CheckpointError, match=r"step 1 couldn't be written to .*: (Not a directory|File exists)"):
            checkpoints.save(1, make_state())
    with Checkpoints(tmp_path / "absent") as checkpoints:
        assert checkpoints.latest() is None and not (tmp_path / "absent").exists()
    with pytest.raises(CheckpointError, match="keep=0"):
        Checkpoints(tmp_path, keep=0)
