"""Sweeps: their points, their matching, and that nothing is done twice or lost."""

import json

import numpy as np
import pytest

from lm import data
from lm.config import ConfigError, get, replace
from lm.data import Data, Text
from lm.models import Decoder
from lm.nn import MLP, Block, MoE, gqa, mha, mqa, swiglu
from lm.sweep import Ablation, Sweep, grid
from lm.sweep import execute as execute_module
from lm.sweep.execute import BadMachine, Outcome, Worker
from lm.sweep.experiment import Planned
from lm.sweep.manifest import Entry, manifest
from lm.sweep.match import quantity
from lm.sweep.tables import curves_table, runs_table
from lm.train import Recording, Run, Training
from lm.train import loop as loop_module
from lm.train.loop import Machine

QUIET = Machine(quiet=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)
    for i in range(40):
        (folder / f"{i}.txt").write_text("".join(rng.choice(list("abcdefgh \n"), size=200)))
    return Run(
        model=Decoder(vocab=256, width=16, layers=2, block=Block(mixer=mha(4), ff=MLP(hidden=32))),
        data=Data(corpus=Text(path=str(folder)), length=32, batch=4, heldout=0.2),
        train=Training(steps=4),
        record=Recording(every=2),
    )


def execute(entries: tuple[Entry, ...], **options) -> Outcome:
    speeds = entries[0].folder.path.parent.parent / "speeds.jsonl"
    return Worker(entries, QUIET, speeds, say=lambda _: None, **options).work()


LR, WIDTH = "train.optimizer.learning_rate", "model.width"


def test_an_unknown_path_is_an_error_that_names_the_nearest(base):
    with pytest.raises(ConfigError, match="learning_rate"):
        Sweep(base=base, points=grid({"train.optimizer.learning_rat": [1e-3]})).planned()


def test_every_arm_of_a_seed_sees_the_same_batches(base):
    ablation = Ablation(base=base, at="model.block.mixer", arms={"MHA": mha(4), "MQA": mqa(4)}, seeds=3)
    runs: tuple[Planned, ...] = ablation.planned()
    assert [(p.arm, p.seed) for p in runs] == [(a, s) for s in range(3) for a in ("MHA", "MQA")]
    for p in runs:
        assert p.run.data == replace(base, {"data.seed": p.seed}).data
        assert p.run.seed == p.seed


@pytest.mark.parametrize("match", ["params", "flops"])
def test_matching_finds_the_nearest_width(base, match):
    wide = replace(base, {"model.width": 64, "model.block.ff": swiglu(96)})
    ablation = Ablation(
        base=wide, at="model.block.mixer", arms={"MHA": mha(8), "GQA": gqa(8, kv_heads=2)}, match=match, multiple=4
    )
    arms = ablation.arms_resolved()
    goal = quantity(arms["MHA"][0], match)
    run = arms["GQA"][0]
    hidden = get(run, "model.block.ff.hidden")
    assert arms["MHA"][0].model.block.ff.hidden == 96 and hidden % 4 == 0 and hidden > 96
    error = abs(quantity(run, match) - goal)
    for other in (hidden - 4, hidden + 4):
        assert error <= abs(quantity(replace(run, {"model.block.ff.hidden": other}), match) - goal)


def test_kv_bytes_are_matched_by_the_width_of_a_head(base):
    ablation = Ablation(
        base=base,
        at="model.block.mixer",
        arms={"GQA": gqa(4, kv_heads=2, head_width=16), "MQA": mqa(4)},
        match="kv_bytes",
        multiple=2,
    )
    arms = ablation.arms_resolved()
    assert arms["MQA"][0].model.block.mixer.head_width == 32
    with pytest.raises(ConfigError, match="doesn't depend"):
        replace(ablation, {"adjust": "model.block.ff.hidden"}).arms_resolved()


def test_active_parameters_are_matched_in_each_arm_by_a_path_of_its_own(base):
    base = replace(base, {"model.width": 64, "model.block.ff": swiglu(96)})
    experts = "model.block.ff.expert.hidden"
    ablation = Ablation(
        base=base,
        at="model.block.ff",
        arms={"dense": swiglu(96), "plain": MLP(hidden=8), "experts": MoE(expert=swiglu(8), experts=4)},
        match="active",
        adjust={"experts": experts},
        multiple=1,
    )
    arms = {name: run for name, (run, _) in ablation.arms_resolved().items()}
    goal = quantity(arms["dense"], "active")
    assert arms["plain"].model.block.ff.hidden == 144 and 40 < get(arms["experts"], experts) < 48
    assert abs(quantity(arms["experts"], "active") / goal - 1) < 0.003
    idle = 2 * 2 * 3 * 64 * get(arms["experts"], experts)  # of two experts in each of two layers
    assert quantity(arms["experts"], "params") == quantity(arms["experts"], "active") + idle
    assert f"plain model.block.ff.hidden=144 (+0.00%), experts {experts}=" in ablation.match_note()
    with pytest.raises(ConfigError, match="adjust: there is no arm 'expert'; did you mean 'experts'"):
        replace(ablation, {"adjust": {"expert": experts}})


def test_equal_training_flops_are_more_steps_for_cheaper_ones(base):
    arms = {"deep": {}, "shallow": {"model.layers": 1}}
    ablation = Ablation(base=replace(base, {"train.steps": 100}), arms=arms, budget="flops", seeds=1)
    deep, shallow = ablation.planned()
    assert deep.run.train.steps == 100 < shallow.run.train.steps == shallow.point["train.steps"]
    step = shallow.run.flops / shallow.run.train.steps
    assert abs(shallow.run.flops - deep.run.flops) <= step / 2
    assert f"deep 100 (+0.00%), shallow {shallow.run.train.steps} (" in ablation.match_note()
    assert [p.run.train.steps for p in replace(ablation, {"budget": "steps"}).planned()] == [100, 100]


def test_a_finished_run_is_never_run_twice_and_a_failed_one_does_not_end_the_rest(base, tmp_path):
    sweep = Sweep(base=base, points=grid({LR: [1e-3, 1e30, 3e-3]}))
    entries = manifest(sweep, tmp_path)
    assert len({entry.id for entry in entries}) == 3 and len({entry.group for entry in entries}) == 1
    outcome = execute(entries)
    assert (outcome.done, outcome.before, len(outcome.failed)) == (2, 0, 1)
    assert [entry.status() for entry in entries] == ["done", "failed", "done"]
    written = [(entry.folder.path / "rows.jsonl").stat().st_mtime_ns for entry in entries]

    again = execute(manifest(sweep, tmp_path))
    assert (again.done, again.before, len(again.failed)) == (0, 2, 1)
    later = [(entry.folder.path / "rows.jsonl").stat().st_mtime_ns for entry in entries]
    assert later[0] == written[0] and later[2] == written[2]

    runs, curves = runs_table(entries, sweep), curves_table(entries)
    assert list(runs["status"]) == ["done", "failed", "done"]
    assert runs["heldout_loss"].notna().tolist() == [True, False, True]
    assert list(runs[LR]) == [1e-3, 1e30, 3e-3] and "learning_rate" in runs["error"][1]
    assert set(curves["split"]) == {"train", "heldout"} and curves["loss"].notna().all()


def test_a_machine_where_everything_fails_leaves_runs_to_others(base, tmp_path, monkeypatch):
    entries = manifest(Sweep(base=base, points=grid({LR: [1e-3, 2e-3, 3e-3, 4e-3, 5e-3]})), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(execute_module, "train", lambda *_: (_ for _ in ()).throw(OSError("no such device")))
        with pytest.raises(BadMachine, match="the first 3 runs all failed here"):
            execute(entries, share=2)
        assert [entry.status() for entry in entries] == ["failed"] * 3 + ["new"] * 2
        outcome = execute(entries)  # without others it does all there is to do
        assert len(outcome.failed) == 5
    assert execute(entries, share=2).done == 5


def test_runs_of_a_group_share_one_compilation(base, tmp_path):
    from lm.config import lift
    from lm.train.step import program

    sweep = Sweep(base=base, points=grid({LR: [1e-3, 2e-3]}), seeds=2)
    execute(manifest(sweep, tmp_path))
    compiled = program(base.model, lift(base.train)[0], QUIET.layout)
    assert base.steps_at_once > 1  # so it is the program of several steps that they share
    assert compiled.steps._cache_size() == 1 and compiled.init._cache_size() == 1


def test_an_interrupted_sweep_goes_on(base, tmp_path, monkeypatch):
    sweep = Sweep(base=base, points=grid({LR: [1e-3, 2e-3]}))
    whole = manifest(sweep, tmp_path / "whole")
    execute(whole)

    class Interrupt(BaseException):
        pass

    calls = []
    original = loop_module.Trainer._report

    def fail(self, step, *rest):
        calls.append(step)
        if len(calls) == 6:
            raise Interrupt
        original(self, step, *rest)

    entries = manifest(sweep, tmp_path / "cut")
    with monkeypatch.context() as patch, pytest.raises(Interrupt):
        patch.setattr(loop_module.Trainer, "_report", fail)
        execute(entries)
    assert [entry.status() for entry in entries] == ["done", "interrupted"]
    execute(entries)
    for a, b in zip(entries, whole, strict=True):
        assert a.folder.result()["heldout_loss"] == b.folder.result()["heldout_loss"]


def test_the_manifest_is_resolved(base, tmp_path):
    (entry,) = manifest(Sweep(base=base, points=grid({LR: [1e-3]})), tmp_path)
    row = json.loads(json.dumps(entry.row()))
    cost = base.model.cost(32)
    assert row["params"] == cost.params and row["tokens"] == 4 * 4 * 32
    assert row["flops"] == 3 * cost.flops * 4 * 4
    assert row["id"] == entry.planned.run.id(data.fingerprint(base.data))
