"""Collectives of a compiled program, counted where the count is known."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from lm import sharding
from lm.plan.hlo import large_buffers, traffic

TURNS, ROWS, WIDTH = 5, 8, 16


def test_bytes_by_axis_with_what_a_loop_does_counted_as_often_as_it_runs():
    where = sharding.layout("data=2,fsdp=2,tensor=2")

    def local(x):  # [ROWS / 2, WIDTH / 4] on each device
        def turn(total, _):
            return jnp.sin(jax.lax.psum(total, "tensor")), None

        x = jax.lax.scan(turn, x, None, length=TURNS)[0]
        x = jax.lax.all_gather(x, ("fsdp", "tensor"), axis=1, tiled=True)
        return jax.lax.psum_scatter(x, "data", scatter_dimension=1, tiled=True)

    split = jax.shard_map(
        local, mesh=where.mesh, in_specs=P("data", ("fsdp", "tensor")), out_specs=P(None, "data"), check_vma=False
    )
    text = jax.jit(split).lower(jnp.zeros((ROWS, WIDTH))).compile().as_text()
    found = {(one["kind"], one["axes"]): (one["count"], one["bytes"]) for one in traffic(text, dict(where.mesh.shape))}
    piece = ROWS // 2 * WIDTH // 4 * 4
    assert found["all-reduce", "tensor"] == (TURNS, TURNS * 2 * piece / 2)
    assert found["all-gather", "fsdp+tensor"] == (1, 3 * piece)
    assert found["reduce-scatter", "data"] == (1, 4 * piece // 2)
    assert set(found) == {("all-reduce", "tensor"), ("all-gather", "fsdp+tensor"), ("reduce-scatter", "data")}


# as the TPU compiler writes: loops without a count, groups of a mesh, a collective in parts on one channel
TPU = """\
HloModule jit_step

%body (arg: (f32[4])) -> (f32[4]) {
  %w = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %ag = (bf16[8,128]{1,0}, bf16[32,128]{1,0}) all-gather-start(%w), replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}
  %s = bf16[32,128]{1,0} all-gather(%w), channel_id=7, replica_groups=mesh['a'=4,'b'=2] {'b'}, PARTS
  %e = bf16[32,128]{1,0} all-gather(%w), channel_id=7, replica_groups=mesh['a'=4,'b'=2] {'b'}, PARTS
  %f = f32[8]{0} fusion(%w), kind=kCustom, calls=%all-reduce-scatter.1
  %done = bf16[32,128]{1,0} all-gather-done(%ag)
  ROOT %t = (f32[4]{0}) tuple(%w)
}

%all-reduce-scatter.1 (arg: f32[32]) -> f32[8] {
  %all = f32[32]{0} all-reduce(%arg), replica_groups=mesh['a'=8] {'a':(1)4}, to_apply=%add
}

%cond (arg: (s32[], f32[4])) -> pred[] {
  %n = s32[]{:T(128)} constant(12)
  ROOT %p = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %i = (f32[4]{0}) tuple(%a)
  %l = (f32[4]{0}) while(%i), condition=%cond, body=%body
  %m = (f32[4]{0}) while(%l), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"24"}}
  %big = f32[1024,1024]{1,0} broadcast(%a), dimensions={}, metadata={op_name="jit(step)/mixer/scores"}
  ROOT %r = f32[4]{0} all-reduce(%a), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%cond
}
""".replace("PARTS", "async_collective_fusion_config={}")


def test_the_text_of_a_tpu_program():
    found = {(one["kind"], one["axes"]): (one["count"], one["bytes"]) for one in traffic(TPU, {"fsdp": 4, "tensor": 2})}
    assert found["all-gather", "fsdp"] == (36, 36 * 3 / 4 * 32 * 128 * 2)
    assert found["all-gather", "tensor"] == (36, 36 * 1 / 2 * 32 * 128 * 2)
    assert found["reduce-scatter", "fsdp"] == (36, 36 * 3 / 4 * 32 * 4)
    assert found["all-reduce", "fsdp+tensor"] == (1, 2 * 7 / 8 * 16)
    largest = large_buffers(TPU)[0]
    assert (largest["shape"], largest["bytes"]) == ("f32[1024,1024]", 4 << 20)
    assert "mixer/scores" in largest["source"]


@pytest.mark.parametrize("kind", ["all-to-all", "collective-permute"])
def test_what_is_sent_to_others_is_counted(kind):
    where = sharding.layout("sequence=4", devices=jax.devices()[:4])

    def local(x):
        if kind == "all-to-all":
            return jax.lax.all_to_all(x, "sequence", 1, 0, tiled=True)
        return jax.lax.ppermute(x, "sequence", [(i, (i + 1) % 4) for i in range(4)])

    spec = (P("sequence"), P(None, "sequence") if kind == "all-to-all" else P("sequence"))
    split = jax.shard_map(local, mesh=where.mesh, in_specs=spec[0], out_specs=spec[1], check_vma=False)
    text = jax.jit(split).lower(jnp.zeros((16, 16))).compile().as_text()
    (one,) = traffic(text, dict(where.mesh.shape))
    piece = 16 * 16 * 4 / 4
    assert (one["kind"], one["axes"], one["count"]) == (kind, "sequence", 1)
    assert one["bytes"] == (piece * 3 / 4 if kind == "all-to-all" else piece)
