"""Searches with training: trials are runs of the store, and a search goes on where it was cut off."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lm import cli
from lm.config import replace
from lm.data import Data, Text
from lm.sweep import Random, Search, SuccessiveHalving, choice, log_uniform, store
from lm.sweep import trials as trials_module
from lm.sweep.study import Study, stored
from lm.sweep.trials import train_trials
from lm.train import Recording
from lm.train import loop as loop_module
from lm.train.folder import RunFolder
from lm.train.lane import Machine
from tests.sweep.toy import LR, Kill, kept, tiny

pytest.importorskip("optuna", reason="pip install 'lm[search]'")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("text"), np.random.default_rng(0)
    for i in range(40):
        (folder / f"{i}.txt").write_text("".join(rng.choice(list("abcdefgh \n"), size=200)))
    return folder


@pytest.fixture
def real(corpus):
    """Five trials of 8 steps, of which some are stopped at step 1 or 2."""
    data = Data(corpus=Text(path=str(corpus)), length=32, batch=4, heldout=0.2)
    base = replace(tiny(data=data), {"train.steps": 8, "record": Recording(every=4)})
    algorithm = Random(pruner=SuccessiveHalving(first=1, factor=2))
    return Search(base=base, space={LR: log_uniform(1e-4, 1e-1)}, trials=5, algorithm=algorithm)


def done(experiment: Search, folder: Path, **machine):
    """The search with training, and what it leaves."""
    outcome = train_trials(experiment, folder, Machine(quiet=True, **machine), say=lambda _: None)
    return outcome, kept(Study(experiment, folder, stored(folder)[1]))


def test_trials_are_runs_that_are_listed_judged_and_never_done_twice(real, tmp_path, monkeypatch):
    outcome, left = done(real, tmp_path / "search")
    assert (outcome.done, outcome.failed) == (5, ())
    runs = store.results(tmp_path / "search")
    assert list(runs["arm"]) == [f"trial {i}" for i in range(5)] and list(runs[LR]) == [p[LR] for p, *_ in left]
    assert {state for _, state, *_ in left} == {"complete", "pruned"}
    for status, loss, (_, state, values, steps) in zip(runs["status"], runs["heldout_loss"], left, strict=True):
        assert status == {"complete": "done", "pruned": "interrupted"}[state]
        assert loss == values[0] if state == "complete" else values == [steps[max(steps)]]
        assert set(steps) <= {1, 2, 4} and (state == "pruned" or set(steps) == {1, 2, 4})

    monkeypatch.setattr(trials_module, "train", None)  # what was done costs nothing, whoever asks for it
    assert done(real, tmp_path / "search") == (trials_module.Outcome(0, 5, (), ()), left)
    assert done(real, tmp_path / "again")[1] == left


def test_a_search_cut_off_while_it_trains_comes_to_the_same_end(real, tmp_path, monkeypatch):
    whole = done(real, tmp_path / "a" / "search")[1]
    calls = Counter()

    def dying(act, at):
        def instead(*arguments):
            calls[act] += 1
            if calls[act] in at:
                raise Kill
            return act(*arguments)

        return instead

    monkeypatch.setattr(loop_module.Trainer, "_report", dying(loop_module.Trainer._report, at=(3, 9)))
    monkeypatch.setattr(RunFolder, "finish", dying(RunFolder.finish, at=(1,)))  # after the last evaluation
    for _ in range(3):
        with pytest.raises(Kill):
            done(real, tmp_path / "b" / "search")
    assert done(real, tmp_path / "b" / "search")[1] == whole
    first, second = (store.results(tmp_path / name / "search") for name in "ab")
    assert list(first["id"]) == list(second["id"]) and len(first) == 5


def test_a_run_that_diverges_or_cannot_be_is_infinitely_bad(real, tmp_path):
    space = {LR: choice(1e-3, 1e30), "model.block.mixer.heads": choice(4, 5)}
    experiment = replace(real, {"space": space, "trials": 4, "algorithm": Random(), "seed": 11})
    outcome, left = done(experiment, tmp_path / "search")
    assert outcome.done == 4 and outcome.failed == ()
    for params, state, values, _ in left:
        bad = params[LR] == "1e+30" or params["model.block.mixer.heads"] == "5"
        assert (state, values == [math.inf]) == (("failed", True) if bad else ("complete", False))
    assert {state for _, state, *_ in left} == {"failed", "complete"}


FILE = '''
"""Which rate is best for nonsense?"""
from lm.data import Data, Text
from lm.models import Decoder
from lm.nn import MLP, Block, mha
from lm.sweep import Median, Search, TPE, choice, log_uniform, uniform
from lm.train import Recording, Run, Training

experiment = Search(
    base=Run(
        model=Decoder(vocab=256, width=16, layers=1, block=Block(mixer=mha(4), ff=MLP(hidden=16))),
        data=Data(corpus=Text(path="TEXT"), length=32, batch=4, heldout=0.2),
        train=Training(steps=4),
        record=Recording(every=2),
    ),
    space={
        "train.optimizer.learning_rate": log_uniform(1e-4, 1e-1),
        "train.clip": uniform(0.5, 2.0),
        "train.schedule.warmup": choice(0, 2),
    },
    trials=4,
    algorithm=TPE(startup=2, pruner=Median(startup=1)),
)
'''


def test_the_commands_plan_do_and_report_a_search(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("nonsense.py").write_text(FILE.replace("TEXT", str(corpus)))

    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            cli.main(list(arguments))
        return int(end.value.code or 0), "".join(capsys.readouterr())

    code, said = call("sweep", "plan", "nonsense.py", "--device", "H100")
    assert code == 0 and "4 trials to do of" in said and not Path("results/nonsense/study.log").exists()
    code, said = call("sweep", "run", "nonsense.py", "--quiet")
    assert code == 0 and "4 trials done now" in said and "Lowest held-out loss" in said
    assert Path("results/nonsense/report.html").stat().st_size > 10_000
    code, said = call("sweep", "plan", "nonsense.py", "--device", "H100")
    assert code == 0 and "0 trials to do" in said and "trial 3" in said
    code, said = call("sweep", "worker", "results/nonsense/manifest.jsonl", "--quiet")
    assert code == 0 and "0 runs done here, 4 before" in said
    code, said = call("sweep", "run", "nonsense.py", "--together", "always")
    assert code == 1 and "one by one" in said
