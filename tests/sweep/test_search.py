"""Searches: decided by what came before, and the same however often they are interrupted."""

import contextlib
import math
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest

from lm.config import ConfigError, dumps, from_dict, replace, to_dict
from lm.errors import UserError
from lm.nn import mha, mqa
from lm.sweep import (
    TPE,
    Hyperband,
    Median,
    Random,
    SuccessiveHalving,
    choice,
    integers,
    uniform,
)
from lm.sweep.study import Study, StudyError, importances, loss_of, planned, state_of, stored, tables
from lm.sweep.trials import Failed, Hopeless, Worthless
from lm.train.lane import Stopped
from lm.train.lock import RunLocked, lock
from tests.sweep.toy import ALGORITHMS, CLIP, KILLED, LR, MIXER, SPACE, STEPS, WIDTH, Kill, climb, kept, silent, toy

optuna = pytest.importorskip("optuna", reason="pip install 'lm[search]'")


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda file: None)


# ---- what comes out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_search_is_its_seed_and_every_pruner_stops_something(name, tmp_path):
    experiment = toy(ALGORITHMS[name], trials=12)
    first, again = Study(experiment, tmp_path / "a"), Study(experiment, tmp_path / "b")
    outcome = silent(first)
    silent(again)
    assert kept(first) == kept(again)
    assert (outcome.done, outcome.before, outcome.failed, outcome.busy) == (12, 0, (), ()) and first.over()
    states = [state_of(t) for t in first.trials()]
    assert ("pruned" in states) == (experiment.algorithm.pruner is not None) and "complete" in states
    other = Study(replace(experiment, {"seed": 1}), tmp_path / "c")
    silent(other)
    assert not {t.params[LR] for t in other.trials()} & {t.params[LR] for t in first.trials()}


def test_a_longer_search_begins_with_the_shorter_one(tmp_path):
    short, long = Study(toy(trials=5), tmp_path / "a"), Study(toy(trials=9), tmp_path / "b")
    silent(short)
    silent(long)
    assert kept(long)[:5] == kept(short)
    grown = Study(toy(trials=9), tmp_path / "a")
    assert silent(grown).before == 5 and kept(grown) == kept(long)


def test_tpe_finds_a_valley_better_than_chance(tmp_path):
    best = {name: [] for name in ("random", "TPE")}
    for name, found in best.items():
        for seed in range(2):
            study = Study(toy(ALGORITHMS[name], trials=20, seed=seed), tmp_path / f"{name}{seed}")
            silent(study)
            found.append(study.best())
    assert np.mean(best["TPE"]) < np.mean(best["random"])


def test_importances_tell_what_matters(tmp_path):
    study = Study(toy(Random(), trials=40), tmp_path)
    silent(study, lambda trial: math.log10(trial.point[LR]) ** 2 + trial.point[CLIP] / 1000)
    shares = importances(study._study)
    assert sum(shares.values()) == pytest.approx(1) and shares[LR] > 0.5 and set(shares) == set(SPACE)
    few = Study(toy(Random(), trials=4), tmp_path / "few")
    silent(few)
    assert importances(few._study) == {}


def test_the_report_of_a_search(tmp_path):
    def objective(trial):
        if trial.number in (3, 5):
            raise Worthless("the loss is nan")
        return climb(trial)

    experiment = toy(TPE(startup=4, pruner=Median(startup=8)), trials=24)
    study = Study(experiment, tmp_path)
    early = experiment.report(
        title="a", question="Which?", runs=pd.DataFrame(), curves=None, **found(study, objective, 4)
    )
    assert "too few" in early.text()
    report = experiment.report(
        title="a", question="Which?", runs=pd.DataFrame(), curves=None, **found(study, objective)
    )
    trials, best = (next(t.frame for t in report.tables if t.name == name) for name in ("trials", "best"))
    assert len(trials) == 24 and best["trial"].iloc[0] == study._study.best_trial.number
    assert list(best["heldout_loss"]) == sorted(best["heldout_loss"]) and set(best["state"]) == {"complete"}
    text = report.text()
    assert f"{study.best():.4f} in trial {best['trial'].iloc[0]}" in text
    assert "Failed: trials 3, 5: the loss is nan." in text and "of this space" in text
    assert report.write(tmp_path / "report").stat().st_size > 10_000


def found(study: Study, objective, trials: int | None = None):
    """The tables of a search after so many trials, or all."""
    few = replace(study.experiment, {"trials": trials or study.experiment.trials})
    silent(Study(few, study.folder), objective)
    return tables(study.experiment, study.folder)


# ---- interruptions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["TPE, median", "TPE, halving"])
def test_a_search_killed_at_any_write_goes_on_as_if_it_had_not_been(name, tmp_path, monkeypatch):
    """Every write to the journal in turn is the last one of a process."""
    experiment = toy(KILLED[name], trials=3)
    whole = Study(experiment, tmp_path / "whole")
    silent(whole)
    backend = optuna.storages.journal.JournalFileBackend
    append, left = backend.append_logs, [0]

    def dying(self, logs):
        append(self, logs)
        left[0] -= 1
        if left[0] == 0:
            raise Kill

    monkeypatch.setattr(backend, "append_logs", dying)
    deaths, over = 0, False
    while not over:
        folder, left[0] = tmp_path / f"cut-{deaths}", deaths + 1
        with contextlib.suppress(Kill):
            silent(Study(experiment, folder))
            over = True
        deaths, left[0] = deaths + 1, 0
        silent(cut := Study(experiment, folder))
        assert kept(cut) == kept(whole)
    assert deaths > 20 and "pruned" in [state_of(t) for t in whole.trials()]


def test_a_trial_that_died_goes_on_before_a_new_one_is_asked_for(tmp_path):
    experiment, seen = toy(trials=3), []

    def dies_once(trial):
        seen.append((trial.number, trial.point))
        if len(seen) == 2:
            trial.judge(1, 0.0)
            raise Kill
        return 1.0

    with pytest.raises(Kill):
        silent(Study(experiment, tmp_path), dies_once)
    study = Study(experiment, tmp_path)
    assert study.unfinished() == [1] and len(study.trials()) == 2
    silent(study, dies_once)
    assert [number for number, _ in seen] == [0, 1, 1, 2] and seen[1] == seen[2]


def test_steps_that_are_done_again_are_judged_once(tmp_path):
    with Study(toy(), tmp_path).next() as trial:
        assert not trial.judge(1, 0.5) and not trial.judge(2, 0.4)
    asked = []
    with Study(toy(), tmp_path).next() as again:
        again._mine.should_prune = lambda: asked.append(again._last)
        for step in STEPS:
            again.judge(step, 0.1)
    assert again.number == 0 and asked == [2, 4, 8]
    assert again.study.frozen(0).intermediate_values == {1: 0.5, 2: 0.4, 4: 0.1, 8: 0.1}


def test_a_request_to_stop_ends_the_search_and_leaves_the_trial_open(tmp_path):
    def stop(trial):
        raise Stopped("stopped")

    study = Study(toy(), tmp_path)
    with pytest.raises(Stopped):
        silent(study, stop)
    assert study.unfinished() == [0]


CHILD = """
import sys, time
from pathlib import Path
from tests.sweep.toy import *

def slowly(trial):
    time.sleep(0.02)
    return climb(trial)

print("ready", flush=True)
sys.stdin.readline()
search(Study(toy(trials=40), Path(sys.argv[1])), slowly, say=lambda line: print(line, flush=True), wait=True)
"""


def test_processes_share_a_search_and_one_that_is_killed_loses_nothing(tmp_path):
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, **pipes) for _ in range(2)]
    assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 2
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    first = [workers[0].stdout.readline() for _ in range(4)]
    workers[0].kill()
    first += workers[0].communicate()[0].splitlines()
    second = workers[1].communicate(timeout=60)[0].splitlines()
    study = Study(toy(trials=40), tmp_path)
    assert study.over() and len(study.trials()) == 40 and len(second) >= 40 - len(first) - 1
    assert len({t.params[LR] for t in study.trials()}) == 40 and len(second) < 40


def test_threads_share_a_search(tmp_path):
    done, together = [], threading.Barrier(3, timeout=60)

    def work():
        study, began = Study(toy(Random(), trials=12), tmp_path), []

        def objective(trial):
            if not began:
                together.wait()  # so that three trials are open at once
            began.append(trial.number)
            return climb(trial)

        silent(study, objective, wait=True)
        done.append(began)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(done) == 3 and sorted(number for began in done for number in began) == list(range(12))
    assert Study(toy(Random(), trials=12), tmp_path).over()


# ---- what goes wrong -------------------------------------------------------------------------------------------


def test_a_worthless_trial_is_infinitely_bad_and_a_failed_one_is_tried_again(tmp_path):
    tries = []

    def objective(trial):
        if trial.number == 1:
            raise Worthless("diverged")
        if trial.number == 2:
            tries.append(trial.number)
            if len(tries) == 1:
                raise Failed("the disk is full")
        if trial.number == 3:
            raise Hopeless("given up")
        return 1.0

    study = Study(toy(trials=5), tmp_path)
    outcome = silent(study, objective)
    assert (outcome.done, outcome.failed) == (4, ("trial 3: given up",)) and len(tries) == 2
    assert [state_of(t) for t in study.trials()] == ["complete", "failed", "complete", "open", "complete"]
    assert loss_of(study.frozen(1)) == math.inf and study.frozen(1).user_attrs["why"] == "diverged"
    assert study.best() == 1.0 and not study.over()
    again = silent(Study(toy(trials=5), tmp_path), lambda trial: 0.5)  # after lm sweep retry
    assert (again.done, again.before, again.failed) == (1, 4, ())


def test_a_fault_that_stays_ends_one_trial_and_not_the_search(tmp_path):
    def objective(trial):
        if trial.number == 0:
            raise ValueError("always")
        return 1.0

    outcome = silent(Study(toy(trials=3), tmp_path), objective, tries=2)
    assert outcome.done == 2 and outcome.failed == ("trial 0: always",)


def test_a_trial_whose_run_another_holds_is_left_to_it(tmp_path):
    def objective(trial):
        if trial.number == 0:
            raise RunLocked("in use by process 1")
        return 1.0

    outcome = silent(Study(toy(trials=3), tmp_path), objective)
    assert outcome.done == 2 and outcome.busy == ("trial 0: in use by process 1",)
    with lock(tmp_path / "locks" / "trial-0"):
        outcome = silent(Study(toy(trials=3), tmp_path))
        assert outcome.done == 0 and outcome.busy == ("trial 0: another process has it",)


def test_a_study_is_of_one_search(tmp_path):
    silent(Study(toy(trials=2), tmp_path, data="a"))
    Study(toy(trials=3), tmp_path, data="a")
    assert stored(tmp_path) == (toy(trials=3), "a")
    with pytest.raises(StudyError, match=r"another search \(space.train.clip.high is 2.0 there, 3.0 here\)"):
        Study(replace(toy(trials=2), {f"space.{CLIP}.high": 3.0}), tmp_path, data="a")
    with pytest.raises(StudyError, match="data has changed"):
        Study(toy(trials=2), tmp_path, data="b")


def test_a_line_cut_short_is_mended_and_a_damaged_one_is_named(tmp_path):
    silent(study := Study(toy(trials=2), tmp_path))
    log, before = tmp_path / "study.log", kept(study)
    with log.open("a") as file:
        file.write('{"op_code": 4, "worker')
    assert len(planned(toy(trials=2), tmp_path)) == 2
    assert kept(Study(toy(trials=2), tmp_path)) == before and "worker\n" not in log.read_text()
    lines = log.read_text().splitlines()
    log.write_text("\n".join([*lines[:3], "garbage", *lines[3:]]) + "\n")
    with pytest.raises(StudyError, match="line 4 is damaged"):
        Study(toy(trials=2), tmp_path)


WRONG = [
    (lambda: toy(trials=0), "trials=0 must be at least 1"),
    (lambda: replace(toy(), {"space": {}}), "at least one path"),
    (lambda: replace(toy(), {"space": {"train.clap": uniform(0, 1)}}), "did you mean 'clip'"),
    (
        lambda: replace(toy(), {"space": {WIDTH: uniform(8, 16)}}),
        "no point of the space makes a run: .*must be int",
    ),
    (lambda: replace(toy(), {"space": {WIDTH: integers(8, 16, step=8)}}), "only 2 points; Sweep"),
    (lambda: toy(Random(pruner=Median(first=16))), "stops nothing in runs of 16 steps"),
    (lambda: replace(toy(), {"base.record.evaluations": 0}), "set base.record.evaluations"),
    (lambda: SuccessiveHalving(first=0), "first=0 must be at least 1"),
    (lambda: Hyperband(first=1, factor=1), "factor=1 must be at least 2"),
    (lambda: TPE(startup=0), "startup=0 must be at least 1"),
]


@pytest.mark.parametrize(("make", "says"), WRONG, ids=[says for _, says in WRONG])
def test_what_cannot_be_is_an_error_that_says_what_can(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


def test_a_search_without_optuna_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"lm\[search\]"):
        Study(toy(), tmp_path)
    assert from_dict(to_dict(toy())) == toy() and dumps(toy())


def test_the_dearest_run_of_a_space(tmp_path):
    space = {
        WIDTH: integers(8, 64, step=8),
        "train.steps": integers(8, 32),
        MIXER: choice(mha(4), mqa(4)),
        LR: SPACE[LR],
    }
    dearest = replace(toy(), {"space": space}).dearest()
    assert (dearest.model.width, dearest.train.steps, dearest.model.block.mixer) == (64, 32, mha(4))
