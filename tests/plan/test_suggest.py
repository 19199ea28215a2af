"""What is suggested fits, can be done, and comes fastest first; times are hand-computed where they can be."""

from dataclasses import replace

import pytest

from lm.config import replace as changed
from lm.errors import UserError
from lm.models.presets.experts import with_experts
from lm.plan import choices, estimate, imagined, plan, predicted, target, text
from lm.plan.compile import excess
from lm.plan.roofline import bandwidth
from lm.plan.suggest import ROOM
from lm.plan.targets import GIB
from lm.plan.textbook import textbook
from tests.plan.test_memory import step


def small(machine, gib):
    return replace(machine, chip=replace(machine.chip, memory=gib * GIB))


def test_what_is_suggested_fits_and_is_sorted():
    one = step(rows=16)
    roomy = choices(one, target("h100x8"))
    tight = small(target("h100x8"), predicted(one, imagined("fsdp=8", None, 8)).total * 0.7 / GIB)
    found = choices(one, tight)
    assert roomy[0].time.worst <= found[0].time.worst
    assert all(choice.held.total <= ROOM * tight.chip.memory for choice in found)
    assert [c.time.worst for c in found] == pytest.approx(sorted(c.time.worst for c in found), abs=1e-4)
    for choice in found:
        rows = one.rows // choice.step.training.accumulate
        assert rows % imagined(choice.mesh, None, 8).ways("batch") == 0
    assert choices(one, small(target("h100x8"), 1e-6)) == []


def test_devices_that_are_left_out_are_refused():
    with pytest.raises(UserError, match="mesh fsdp=4 uses 4 of the 16 devices of v5e-16"):
        plan(step(), target("v5e-16"), "fsdp=4", compiles=False)


def test_a_mesh_that_cannot_split_the_heads_is_not_suggested():
    from lm.models.presets import llama_style

    three = replace(step(), model=llama_style(96, 2, heads=3))
    assert all("tensor" not in choice.mesh for choice in choices(three, target("h100x8")))


def test_a_step_that_waits_for_arithmetic():
    one, machine = step(remat="full"), target("v5e-16")
    where = imagined("fsdp=16", None, 16)
    found = estimate(one, where, machine, predicted(one, where))
    flops = 3 * one.model.cost(one.length).flops * one.rows
    assert found.compute == pytest.approx(flops * 4 / 3 / (16 * 197e12))
    plain = changed(one.training, {"execution.remat": "none"})
    assert (
        estimate(replace(one, training=plain), where, machine, predicted(one, where)).compute * 4 / 3 == found.compute
    )
    assert found.best <= found.worst and found.mfu == pytest.approx(flops / (16 * 197e12) / found.best)
    stages = imagined("stage=4,fsdp=4", None, 16)  # 32 rows of 4 devices: 8 microbatches, and 3 iterations more
    idle = estimate(one, stages, machine, predicted(one, stages)).compute / found.compute
    assert idle == pytest.approx(11 / 8)
    counted = [{"kind": "all-gather", "axes": "fsdp", "count": 3, "bytes": 1e12}]
    waits = estimate(one, where, machine, predicted(one, where), counted)
    assert waits.bound == "network" and waits.network == {"fsdp": pytest.approx(1e12 / 50e9)}


@pytest.mark.parametrize(
    ("mesh", "axes", "machine", "rate"),
    [
        ("fsdp=16", "fsdp", "v5e-16", 50e9),  # a 4x4 slice doesn't close the ring
        ("fsdp=256", "fsdp", "v5e-256", 100e9),  # 16x16 does
        ("fsdp=128", "fsdp", "v5p-256", 200e9),
        ("fsdp=8", "fsdp", "h100x8", 450e9),
        ("data=2,fsdp=8", "fsdp", "h100x16", 450e9),
        ("data=2,fsdp=8", "data", "h100x16", 50e9),  # a network card for each GPU
        ("fsdp=16", "fsdp", "h100x16", 400e9),  # eight cards serve one ring
    ],
)
def test_the_network_of_an_axis(mesh, axes, machine, rate):
    where = imagined(mesh, None, target(machine).devices)
    assert bandwidth(axes, where, target(machine)) == rate


def test_the_textbook_of_each_form_of_parallelism():
    one = step(rows=64, length=64)
    params, stream = one.model.cost(64).params * 4, 64 * 64 * 128 * 4

    def sent(mesh, step=one):
        return textbook(step, imagined(mesh, None, 4))

    assert sent("data=4") == {("all-reduce", "data"): pytest.approx(2 * 3 / 4 * params)}
    assert sent("fsdp=4") == {
        ("all-gather", "fsdp"): pytest.approx(2 * 3 / 4 * params),
        ("reduce-scatter", "fsdp"): pytest.approx(3 / 4 * params),
    }
    # four layers of four sums, the table's and the head's
    assert sent("tensor=4") == {("all-reduce", "tensor"): pytest.approx((4 * 4 + 2) * 2 * 3 / 4 * stream)}
    for k in (1, 2, 4):
        experts = replace(one, model=with_experts(one.model, 8, k))
        there = sent("expert=4", experts)["all-to-all", "expert"]
        assert there == pytest.approx(4 * 4 * k * 3 / 4 * stream / 4)  # of each device its own rows
    again = replace(one, training=changed(one.training, {"execution.remat": "offload"}))
    assert sent("tensor=4", again)["all-reduce", "tensor"] == pytest.approx((4 * 6 + 2) * 2 * 3 / 4 * stream)
    assert textbook(one, imagined("", None, 1)) == {}


def test_a_plan_that_does_not_fit_says_what_would():
    one = step(rows=64)
    machine = small(target("h100x2048"), predicted(one, imagined("fsdp=64", None, 64)).total * 0.5 / GIB)
    made = plan(one, replace(machine, devices=64), "fsdp=64", compiles=False)
    said = text(made, steps=10)
    assert not made.fits and "does not fit" in said and "by the cost model: it wasn't asked for" in said
    assert "--mesh" in said.split("These fit by the cost model")[1]
    # one row of a device, and of hidden units what each of four layers makes
    assert "[4, 1, 128, 352]  x " in said and "kept for the backward pass" in said


EXHAUSTED = """RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm.
Largest program allocations in hbm:

  1. Size: 8.00G
     Operator: op_name="jit(_step)/mixer/attend"
     Shape: f32[16,32,2048,2048]{3,2,1,0:T(8,128)}
     Unpadded size: 8.00G
     ==========================

  2. Size: 512.0M
     Shape: bf16[128]{0}
"""


def test_the_tpu_compilers_words_are_read():
    found = excess(EXHAUSTED)
    assert (found.used, found.limit) == (20.5 * GIB, 15.75 * GIB)
    first, second = found.buffers
    assert first == {"bytes": 8 * GIB, "source": "jit(_step)/mixer/attend", "shape": "f32[16,32,2048,2048]"}
    assert second["bytes"] == GIB / 2


def test_the_compilers_short_form_is_read_too():
    said = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (112.00G) exceeds"
    )
    found = excess(said + " available HBM (15.75G).")
    assert (found.used, found.limit, found.buffers) == (112 * GIB, 15.75 * GIB, ())
