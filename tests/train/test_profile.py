"""Traces of training steps: a run with one is the same run, and what a trace says is added up rightly."""

import dataclasses
import itertools
import json
import logging
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from lm import cli
from lm.commands.profile import place
from lm.commands.sweep import RunSweep, _work
from lm.commands.train import Train
from lm.config import replace
from lm.data import Data, Text
from lm.errors import UserError
from lm.models import Decoder
from lm.nn import MLP, Block, mha
from lm.sharding import layout
from lm.sweep import execute, manifest
from lm.sweep.experiment import Planned
from lm.sweep.launchers import Local
from lm.train import Recording, Run, Training
from lm.train.load import load_run
from lm.train.loop import Machine, Trainer, train
from lm.train.profile import FOLDER, Event, Window, events, read, summary
from lm.train.rows import read as rows_of

TIMES = ("seconds", "tokens_per_second", "mfu")
MACHINE = Machine(quiet=True, layout=layout("data=2"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)
    for i in range(20):
        (folder / f"{i}.txt").write_text("".join(rng.choice(list("abcdefgh \n"), size=200)))
    return Run(
        model=Decoder(vocab=256, width=16, layers=1, block=Block(mixer=mha(2), ff=MLP(hidden=32))),
        data=Data(corpus=Text(path=str(folder)), length=16, batch=4, heldout=0.2),
        train=Training(steps=8),
        record=Recording(every=1, evaluations=1),
    )


@pytest.fixture(scope="module")
def profiled(run, tmp_path_factory):
    """The run's folder, trained with a profile of steps 3 to 5."""
    folder = tmp_path_factory.mktemp("profiled")
    train(run, folder, dataclasses.replace(MACHINE, profile=Window.read("steps=3:5")))
    return folder


def rows(folder):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows_of(folder / "rows.jsonl")]


def test_a_profiled_run_is_the_same_run(run, profiled, tmp_path):
    train(run, tmp_path, MACHINE)
    assert not (tmp_path / FOLDER).exists()
    assert rows(profiled) == rows(tmp_path)
    ours, theirs = (jax.tree.leaves(load_run(folder).params) for folder in (profiled, tmp_path))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_a_trace_holds_the_asked_steps_of_every_device(run, profiled):
    assert run.steps_at_once > 5  # a dispatch ends before the first and after the last of them
    found = read(profiled)
    assert (found.first, found.last, found.steps) == (3, 5, 3)
    assert list(found.idle) == ["CPU:0", "CPU:1"] and all(0 <= share < 1 for share in found.idle.values())
    assert 0 < found.seconds < 60 and found.busy > 0
    seconds = [each.seconds for each in found.operations]
    assert seconds == sorted(seconds, reverse=True)
    assert set(found.programs()) == {"_steps", "_evaluate"}  # one evaluation is after step 4
    collectives = [each for each in found.operations if each.collective and each.program.startswith("jit__steps")]
    # the steps are a loop of one program: what it holds runs once a step on each device
    assert collectives and all(each.calls == 3 * 2 for each in collectives)
    assert not any(each.name.startswith("while") for each in found.operations)
    assert any("/mixer/" in each.source for each in found.operations)


def test_the_command_prints_operations_and_idle_share(profiled, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["profile", str(profiled), "--top", "3"])
    said = capsys.readouterr().out
    assert not end.value.code
    assert said.startswith("steps 3 to 5 of ") and "\n3 of " in said
    assert "CPU:0: " in said and "CPU:1: " in said and "collectives, waiting included: " in said
    assert "programs: " in said and "_steps " in said


def test_what_can_not_be_profiled_says_so(run, profiled, tmp_path, capsys, caplog):
    with pytest.raises(SystemExit) as end:
        cli.main(["profile", str(tmp_path)])
    said = capsys.readouterr().err
    assert end.value.code == 1 and "has no profile; " in said and "--profile steps=10:15" in said
    with pytest.raises(SystemExit) as end:
        cli.main(["profile", str(profiled), "--top", "0"])
    assert end.value.code == 1 and "--top 0 must be at least 1" in capsys.readouterr().err
    for text in ("10:15", "steps=0:3", "steps=5:4", "steps=3", "steps=a:b"):
        with pytest.raises(UserError, match="must be of the form steps=10:15"):
            Window.read(text)
    with pytest.raises(UserError, match="steps=3:9: the run has 8 steps"):
        train(run, tmp_path, dataclasses.replace(MACHINE, profile=Window(3, 9)))
    assert not any(tmp_path.iterdir())  # it is no failure of the run
    with caplog.at_level(logging.WARNING, "lm"):
        train(run, profiled, dataclasses.replace(MACHINE, profile=Window(6, 7)))
    assert "is done, none of its steps is profiled" in caplog.text
    assert json.loads((profiled / FOLDER / "steps.json").read_text()) == {"first": 3, "last": 5}


def test_a_run_of_a_sweep_that_is_too_short_is_trained_without(run, tmp_path, monkeypatch, caplog):
    asked = []
    monkeypatch.setattr(execute, "train", lambda run, folder, machine: asked.append(machine.profile) or {"a": 1})
    monkeypatch.setattr(execute.Worker, "_note", lambda *_: True)
    entries = manifest.entries([Planned(replace(run, {"train.steps": n}), "a", 0, {}) for n in (8, 9)], tmp_path)
    machine = dataclasses.replace(MACHINE, profile=Window(3, 9))
    for entry in entries:
        execute.Worker(entries, machine, tmp_path / "speeds.jsonl")._do([entry], {})
    assert asked == [None, Window(3, 9)]
    assert caplog.messages == ["a run of 8 steps isn't profiled up to step 9"]


def test_every_report_is_in_the_time_of_a_dispatch(run, tmp_path, monkeypatch):
    """The watch over steps knows a median there; a device that hangs is waited for nowhere else."""
    doing, report = [], Trainer._report

    def noted(self, *arguments):
        doing.append(self.watch._doing.what)
        report(self, *arguments)

    monkeypatch.setattr(Trainer, "_report", noted)
    train(run, tmp_path, MACHINE)
    assert doing and all(what.startswith("step ") for what in doing)


def test_the_option_reaches_this_machine_and_workers(tmp_path):
    assert Train(file="x.py", profile="steps=2:3").machine().profile == Window(2, 3)
    assert Train(file="x.py").machine().profile is None
    command = RunSweep(file="x.py", profile="steps=2:3")
    options = _work(command, SimpleNamespace(name="x"), tmp_path, Local()).options  # type: ignore[arg-type]
    assert ("--profile", "steps=2:3") in itertools.pairwise(options)


def plane(name: str, lines: dict[str, list[tuple[str, int, int, dict[str, str]]]]) -> str:
    """A plane of a trace as text; events are (name, start and duration in ns, stats)."""
    names = sorted({event[0] for each in lines.values() for event in each})
    stats = sorted({key for each in lines.values() for event in each for key in event[3]})
    text = f'name: "{name}"\n'
    for line, each in lines.items():
        text += f'lines {{ name: "{line}" timestamp_ns: 1000\n'
        for event, start, duration, more in each:
            text += f"events {{ metadata_id: {names.index(event) + 1} offset_ps: {start}000 duration_ps: {duration}000 "
            for key, value in more.items():
                text += f'stats {{ metadata_id: {stats.index(key) + 1} str_value: "{value}" }} '
            text += "}\n"
        text += "}\n"
    for kind, known in (("event", names), ("stat", stats)):
        for i, each in enumerate(known, 1):
            text += f'{kind}_metadata {{ key: {i} value {{ id: {i} name: "{each}" }} }}\n'
    return f"planes {{ {text} }}\n"


def trace(*planes: str) -> bytes:
    return jax.profiler.ProfileData.text_proto_to_serialized_xspace("".join(planes))


def test_a_gpu_by_its_streams():
    dot, sent = {"hlo_op": "dot.1", "hlo_module": "jit__step"}, {"hlo_op": "all-reduce.2", "hlo_module": "jit__step"}
    data = trace(
        plane(
            "/device:GPU:0",
            {
                "Stream #13(Compute)": [("gemm", 0, 40, dot), ("gemm", 60, 20, dot), ("MemcpyD2D", 80, 10, {})],
                "Stream #14(Communication)": [("ncclKernel", 30, 40, sent)],
                "XLA Modules": [("jit__step", 0, 100, {})],
                "Source": [("step.py", 0, 100, {})],
            },
        ),
        plane("/device:GPU:1", {"Stream #13(Compute)": [("gemm", 50, 50, dot)]}),
        plane("/host:CPU", {"python": [("step", 0, 100, {})]}),
    )
    found = summary(list(events(data)), {"jit__step()": {"dot.1": "jit(_step)/jvp()/ff/dot_general"}}, 10, 11)
    assert [(each.name, each.calls, round(each.seconds * 1e9)) for each in found.operations] == [
        ("dot.1", 3, 110),
        ("all-reduce.2", 1, 40),
        ("MemcpyD2D", 1, 10),
    ]
    assert [each.collective for each in found.operations] == [False, True, False]
    assert found.operations[0].source == "jit(_step)/jvp()/ff/dot_general" and found.operations[1].source == ""
    # of 100 ns the first has work from 0 to 90 on one stream or the other, the second half of the time
    assert found.idle == {"GPU:0": pytest.approx(0.1), "GPU:1": pytest.approx(0.5)}
    assert found.seconds == pytest.approx(100e-9) and found.busy == pytest.approx(160e-9) and found.steps == 2


def test_a_tpu_by_its_operations():
    data = trace(
        plane(
            "/device:TPU:0",
            {
                "Steps": [("0", 0, 100, {})],
                "XLA Modules": [("jit__step(7)", 0, 100, {})],
                "XLA Ops": [
                    ("%while.3 = (s32[]) while(%tuple)", 0, 100, {}),
                    ("%fusion.1 = f32[8]{0} fusion(%p)", 0, 30, {}),
                    ("%fusion.1 = f32[8]{0} fusion(%p)", 70, 30, {}),
                ],
                "Async XLA Ops": [("%copy-start = (f32[8]) copy-start(%p)", 0, 100, {})],
            },
        )
    )
    found = list(events(data))
    assert [(each.device, each.operation, each.duration) for each in found] == [("TPU:0", "fusion.1", 30.0)] * 2
    assert {each.program for each in found} == {"jit__step(7)"}
    assert summary(found, {}, 1, 1).idle == {"TPU:0": pytest.approx(0.4)}
    assert summary(found, {}, 1, 1).programs() == {"_step": pytest.approx(1.0)}


def test_the_source_of_a_program_with_another_id():
    found = [Event("GPU:0", "jit_f(3)", name, 0, 10) for name in ("a", "b")]
    names = {"jit_f(1)": {"a": "old"}, "jit_f(2)": {"a": "one", "b": "two"}, "jit_g(3)": {"a": "no", "b": "no"}}
    assert {each.source for each in summary(found, names, 1, 1).operations} == {"one", "two"}
    assert {each.source for each in summary(found, {"jit_g(3)": {}}, 1, 1).operations} == {""}


def test_idle_counts_no_time_twice():
    spans = [(0, 10), (5, 10), (6, 2), (30, 10)]  # 0-15 and 30-40
    found = summary([Event("GPU:0", "", "a", start, duration) for start, duration in spans], {}, 1, 1)
    assert found.idle == {"GPU:0": pytest.approx(15 / 40)}


def test_the_place_of_an_operation():
    assert place("jit(_step)/transpose(jvp())/while/body/closed_call/mixer/attend/dot_general") == (
        "mixer/attend/dot_general (backward)"
    )
    assert place("jit(_step)/jvp(head)/BLD,VD->BLV/dot_general") == "head/BLD,VD->BLV/dot_general"
    assert place("jit(_step)/(jvp()/ff/dot_general:jvp()/mixer/dot_general)") == "ff/dot_general and 1 more"
    assert place("") == ""
