"""What devices exchange in a training step: as the golden file has it, and little more than the textbook's bytes.

Where a change is meant to exchange more or less: PYTHONPATH=. python tools/bench/scale.py --golden
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from lm.plan.hlo import traffic
from lm.sharding import layout
from tools.bench import collectives
from tools.bench.collectives import CASES, Case

GOLDEN = collectives.kept()
OTHER_JAX = f"the golden file is of jax {GOLDEN['jax']}, and other versions compile other collectives"


@functools.cache
def measured(case: Case) -> collectives.Found:
    return collectives.measured(case)


@pytest.mark.skipif(jax.__version__ != GOLDEN["jax"], reason=OTHER_JAX)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rules)
def test_a_step_exchanges_what_the_golden_file_says(case: Case) -> None:
    kept = {line: said for line, said in GOLDEN["collectives"].items() if line.startswith(f"{case.rules}: ")}
    assert collectives.described(case.rules, measured(case)) == kept


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rules)
def test_a_step_exchanges_no_more_than_the_textbook_says(case: Case) -> None:
    found, wanted = measured(case), collectives.textbook(case)
    assert wanted.keys() <= found.keys()
    for key, sent in wanted.items():
        most, _ = collectives.MORE.get((case.rules, key), (1.01, ""))
        assert found[key][1] <= most * sent, key
    for key in found.keys() - wanted.keys():
        most, _ = collectives.BESIDES.get((case.rules, key), (collectives.LITTLE, ""))
        assert found[key][1] <= most * sum(wanted.values()), key


def test_the_golden_file_has_every_preset() -> None:
    assert {line.split(":")[0] for line in GOLDEN["collectives"]} == {case.rules for case in CASES}
    assert {rules for rules, _ in collectives.MORE} <= {case.rules for case in CASES}


def test_collectives_are_counted_by_axis_and_as_often_as_a_loop_runs() -> None:
    where = layout("data=2,fsdp=2,tensor=2")
    rows, ones = 4, np.ones((8, 4), np.float32)

    def local(x: jax.Array) -> jax.Array:
        def turn(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return jnp.sin(lax.psum(x, "data")), None  # [4 4] each: 64 bytes

        x, _ = lax.scan(turn, x, None, length=3)
        x = lax.ppermute(x, "tensor", [(0, 1), (1, 0)])
        return lax.all_gather(lax.psum(x, ("data", "fsdp")), "tensor", tiled=True)  # [8 4]: 128 bytes

    split = PartitionSpec("tensor", None)
    by_device = jax.shard_map(local, mesh=where.mesh, in_specs=split, out_specs=PartitionSpec(), check_vma=False)
    text = jax.jit(by_device).lower(jnp.asarray(ones)).compile().as_text() or ""
    found = {(r["kind"], r["axes"]): (r["count"], r["bytes"]) for r in traffic(text, dict(where.mesh.shape))}
    one = rows * 4 * 4
    assert found == {
        ("all-reduce", "data"): (3, 3 * 2 * one / 2),
        ("collective-permute", "tensor"): (1, one),
        ("all-reduce", "data+fsdp"): (1, 2 * one * 3 / 4),
        ("all-gather", "tensor"): (1, 2 * one / 2),
    }


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", "tensor"),
        ("replica_groups=[4,2]<=[8]", "tensor"),
        ("replica_groups=[4,2]<=[4,2]T(1,0)", "fsdp"),
        ("replica_groups=[2,4]<=[2,2,2]T(1,0,2)", "data+tensor"),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_1'}", "tensor"),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}", "data+fsdp"),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4], device_ids=([2,2,2]T(1,0,2)) {'axis_0'}", "fsdp"),
        ("replica_groups=mesh['axis_0'=8] {'axis_0':(2)2}", "fsdp"),
        ("replica_groups=mesh['axis_0'=8] {'axis_0':(1)4}", "data+fsdp"),
        ("replica_groups={}", "data+fsdp+tensor"),
    ],
)
def test_every_way_to_write_who_exchanges(groups: str, axes: str) -> None:
    text = (
        f"ENTRY %main (p: f32[8]) -> f32[8] {{\n  ROOT %r = f32[8]{{0}} all-reduce(%p), {groups}, to_apply=%add\n}}\n"
    )
    (row,) = traffic(text, {"data": 2, "fsdp": 2, "tensor": 2})
    assert row["axes"] == axes


def test_a_loop_without_a_written_count_runs_as_its_counter_says() -> None:
    text = """
%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %r = f32[8]{0} all-reduce(%x), replica_groups=[1,8]<=[8], to_apply=%add
}

%condition (p: (s32[], f32[8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(5)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

ENTRY %main (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  ROOT %w = (s32[], f32[8]{0}) while(%p), condition=%condition, body=%body
}
"""
    (row,) = traffic(text, {"data": 8})
    assert (row["count"], row["bytes"]) == (5, 5 * 2 * 32 * 7 / 8)
    (once,) = traffic(text.replace("direction=LT", "direction=NE"), {"data": 8})
    assert once["count"] == 1
