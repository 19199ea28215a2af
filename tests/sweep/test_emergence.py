"""Emergence experiments: what they plan, which curve each run belongs to, and their reports from what runs wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lm.analysis.tables import TableError
from lm.analysis.text import si
from lm.config import ConfigError, dumps, loads, replace
from lm.data import TaskData
from lm.data.synthetic import ModularArithmetic, ModularSum
from lm.evals import Answers, Positions
from lm.models import Decoder
from lm.nn import MLP, Block, Learned, mha
from lm.sweep import Advantage, Emergence, Panel, Published, Reaches, Verdict, at_widths
from lm.sweep.manifest import Entry
from lm.sweep.report import details_table
from lm.sweep.tables import curves_table
from lm.train import Recording, Run, Training, mup
from lm.train.folder import RunFolder
from lm.train.rows import Rows

TASK = ModularSum(terms=3, modulus=5, form="scratchpad")
BASE = Run(
    model=Decoder(
        vocab=TASK.vocab,
        width=32,
        layers=2,
        block=Block(mixer=mha(4, position=None), ff=MLP(hidden=64)),
        position=Learned(length=TASK.length),
    ),
    data=TaskData(task=TASK, batch=4),
    train=Training(steps=8),
    record=Recording(measures=(Answers(), Positions())),
)
ARMS: dict[str, dict[str, Any]] = {"steps": {}, "at once": {"data.task": replace(TASK, {"form": "direct"})}}
PANELS = (Panel(title="answers", metrics=("answers.exact",)),)


def emergence(**more: Any) -> Emergence:
    return Emergence(**{"base": BASE, "arms": ARMS, "panels": PANELS, "seeds": 2} | more)


def params(run: Run) -> int:
    return run.model.cost(run.data.length).params


class TestPlans:
    def test_every_arm_over_seeds(self) -> None:
        planned = emergence().planned()
        assert [(p.arm, p.seed) for p in planned] == [(a, s) for s in (0, 1) for a in ("steps", "at once")]
        assert planned[0].run == BASE and planned[3].run.data.seed == planned[3].run.seed == 1
        assert planned[1].run.data.task == ModularSum(terms=3, modulus=5)  # type: ignore[attr-defined]
        assert emergence().axes == ("data.task",)

    def test_every_arm_at_every_size(self) -> None:
        made = emergence(sizes=at_widths(BASE, (8, 64)), seeds=1)
        runs = {p.arm: p.run for p in made.planned()}
        assert list(runs) == ["steps, width 8", "at once, width 8", "steps, width 64", "at once, width 64"]
        assert [run.model.width for run in runs.values()] == [8, 8, 64, 64]
        assert set(made.axes) == {"model", "data.task"}
        deeper = emergence(arms={"3 layers": {"model.layers": 3}}, sizes=at_widths(BASE, (8, 64)))
        assert {(r.model.width, r.model.layers) for r, _ in deeper.arms_resolved().values()} == {(8, 3), (64, 3)}

    def test_an_arm_cant_undo_a_size(self) -> None:
        with pytest.raises(ConfigError, match=r"arm 'a' and size 'b' both set model\.layers"):
            emergence(arms={"a": {"model.layers": 1}}, sizes={"b": {"model.layers": 2}}).planned()
        with pytest.raises(ConfigError, match="arm 'a' and size 'b' both set model"):
            emergence(arms={"a": {"model": BASE.model}}, sizes={"b": {"model.layers": 1}}).planned()
        # names that only begin alike are others
        made = emergence(arms={"a": {"data.test": 9}}, sizes={"b": {"data.task": TASK}})
        assert len(made.planned()) == 2

    def test_sizes_follow_the_width(self) -> None:
        for name, change in at_widths(BASE, (8, 48)).items():
            model = replace(BASE, change).model
            assert name == f"width {model.width}"
            mixer, ff = model.pattern[0].mixer, model.pattern[0].ff
            assert mixer.heads == 4 and ff.hidden == 2 * model.width  # type: ignore[attr-defined, union-attr]
        assert replace(BASE, at_widths(BASE, (32,))["width 32"]) == BASE
        rule = mup(BASE, base_width=8, heads="wider")
        assert replace(rule, at_widths(rule, (64,))["width 64"]).model.logit_scale == 1 / 8

    def test_it_is_a_value(self) -> None:
        made = emergence(
            sizes=at_widths(BASE, (8, 64)),
            verdicts=(Verdict(series="steps", hard="answers.exact", soft="answers.logprob"),),
            claims=(Reaches(expected="it does", series="steps", metric="answers.exact", level=0.5),),
        )
        assert loads(dumps(made)) == made

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"seeds": 0}, "seeds=0"),
            ({"arms": {}}, "at least one arm and one panel"),
            ({"panels": ()}, "at least one arm and one panel"),
            ({"over": "params"}, "takes at least two sizes"),
            ({"over": "params", "sizes": at_widths(BASE, (8,))}, "takes at least two sizes"),
            ({"profile": "estimates"}, "profile='estimates' is no measure of the base"),
        ],
    )
    def test_refuses(self, changes: dict[str, Any], words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            emergence(**changes)

    @pytest.mark.parametrize("over", ["step", "params"])
    def test_a_panel_is_about_series_there_are(self, over: Any) -> None:
        panels = (Panel(title="a", metrics=("m",), series=("nothing",)),)
        sizes = at_widths(BASE, (8, 16)) if over == "params" else None
        with pytest.raises(ConfigError, match="panel 'a': there is no series 'nothing'"):
            emergence(panels=panels, over=over, sizes=sizes)

    def test_a_panel_shows_something(self) -> None:
        with pytest.raises(ConfigError, match="panel 'empty' shows no metric"):
            Panel(title="empty", metrics=())


class TestPlaces:
    def test_over_training_each_size_is_a_series(self) -> None:
        made = emergence(sizes=at_widths(BASE, (8, 64)))
        assert made.places() == {name: (name, None) for name in made.arms_resolved()}

    def test_over_sizes_an_arm_is_one_at_the_runs_parameters(self) -> None:
        made = emergence(sizes=at_widths(BASE, (8, 64)), over="params")
        runs = {name: run for name, (run, _) in made.arms_resolved().items()}
        small, large = params(runs["steps, width 8"]), params(runs["steps, width 64"])
        assert made.places() == {
            "steps, width 8": ("steps", small), "at once, width 8": ("at once", small),
            "steps, width 64": ("steps", large), "at once, width 64": ("at once", large),
        }  # fmt: skip
        assert small < large


def entry(experiment: Emergence, number: int, folder: Path) -> Entry:
    planned = experiment.planned()[number]
    return Entry(planned, f"run{number}", "data", "group", RunFolder(folder / f"run{number}"))


class TestDetails:
    def test_lists_at_the_last_evaluation(self, tmp_path: Path) -> None:
        made = emergence()
        found = [entry(made, number, tmp_path) for number in (0, 1, 2)]
        for one in found[:2]:
            with Rows(one.folder.details) as rows:
                rows.append({"step": 1, "split": "positions", "loss": [9.0, 9.0]})
                rows.append({"step": 8, "split": "positions", "loss": [2.0, one.planned.seed], "heads": [[1.0], [2.0]]})
                rows.append({"step": 4, "split": "answers", "exact": [1, 0, None]})
        table = details_table(found)
        assert list(table.columns) == ["arm", "seed", "step", "split", "name", "index", "value"]
        mine = table.loc[(table["arm"] == "at once") & (table["split"] == "positions")]
        assert mine[["step", "name", "index", "value"]].to_numpy().tolist() == [
            [8, "loss", 0, 2.0],
            [8, "loss", 1, 0.0],
        ]
        assert table.loc[table["split"] == "answers", "value"].tolist()[:2] == [1, 0]
        assert set(table["name"]) == {"loss", "exact"} and len(table) == 2 * (2 + 3)

    def test_without_details_it_is_empty(self, tmp_path: Path) -> None:
        table = details_table([entry(emergence(), 0, tmp_path)])
        assert table.empty and "split" in table.columns


def written(experiment: Emergence, folder: Path) -> dict[str, pd.DataFrame]:
    """Tables of runs in which exact match is 0 but for the last step of the first arm at its largest size."""
    found = [entry(experiment, number, folder) for number in range(len(experiment.planned()))]
    for one in found:
        width, arm = one.planned.run.model.width, one.planned.arm
        with Rows(one.folder.rows) as rows:
            for step in (1, 8):
                base = {"step": step, "tokens": 100 * step}
                right = arm.startswith("steps") and width == 64 and step == 8
                rows.append(base | {"split": "answers", "exact": float(right), "examples": 200.0})
                rows.append(base | {"split": "heldout", "loss": 2.0 - step / 8})
    runs = pd.DataFrame(
        [
            {"id": e.id, "arm": e.planned.arm, "seed": e.planned.seed, "status": "done", "heldout_loss": 1.0}
            for e in found
        ]
    )
    return {"runs": runs, "curves": curves_table(found), "details": details_table(found)}


class TestReports:
    ADVANTAGE = Advantage(
        expected="steps help large models", of=("steps", "answers.exact"), over=("at once", "answers.exact")
    )

    def test_over_sizes(self, tmp_path: Path) -> None:
        made = emergence(sizes=at_widths(BASE, (8, 64)), over="params", claims=(self.ADVANTAGE,))
        report = made.report(title="t", question="q", command="c", **written(made, tmp_path))
        (small, _), (large, _) = (made.arms_resolved()[f"steps, width {width}"] for width in (8, 64))
        claims = next(t for t in report.tables if t.name == "claims").cells
        said = (
            f"advantage +0.00 at {params(small):,}, +1.00 at {params(large):,}: above 0.05 first at {params(large):,}"
        )
        assert claims == [["steps help large models", "yes", said]]
        (axes,) = report.plots[0].figure.axes
        assert axes.get_xlabel() == "parameters"

    def test_over_training(self, tmp_path: Path) -> None:
        rises = Reaches(expected="it does", series="steps, width 64", metric="answers.exact", level=0.5)
        made = emergence(sizes=at_widths(BASE, (8, 64)), claims=(rises,))
        tables, run = written(made, tmp_path), made.arms_resolved()["steps, width 64"][0]
        for over, at in (("step", "8"), ("tokens", "800"), ("flops", si(800 * run.flops / run.tokens))):
            report = replace(made, {"over": over}).report(title="t", question="q", **tables)
            (judged,) = next(t for t in report.tables if t.name == "claims").cells
            assert judged == ["it does", "yes", f"steps, width 64: answers.exact reaches 0.5 at {at}"]

    def test_the_profile_is_of_its_measure(self, tmp_path: Path) -> None:
        made = emergence(profile="positions")
        tables = written(made, tmp_path)
        rows = [("steps", 0, 8, split, "loss", i, 1.0) for split in ("answers", "positions") for i in (0, 1)]
        details = pd.DataFrame(rows, columns=tables["details"].columns)
        report = made.report(title="t", question="q", **tables | {"details": details})
        plot = next(p for p in report.plots if p.name == "profile")
        assert plot.figure.axes[0].get_ylabel() == "positions"


class TestPublished:
    def scores(self, tmp_path: Path) -> Path:
        lines = ["model,family,params,tokens,easy_acc,hard_acc"]
        lines += [f"m{i},f{i % 3},{2**i}e6,1e9,{min(0.1 * i, 1)},{max(0.1 * i - 0.5, 0)}" for i in range(12)]
        path = tmp_path / "scores.csv"
        path.write_text("\n".join(lines))
        return path

    def test_nothing_is_run(self, tmp_path: Path) -> None:
        made = Published(scores=str(self.scores(tmp_path)), resamples=5)
        assert made.planned() == () and made.arms_resolved() == {} and made.axes == ()

    def test_its_report_is_of_the_table(self, tmp_path: Path) -> None:
        made = Published(scores=str(self.scores(tmp_path)), resamples=5, tasks=("easy",), over="params")
        report = made.report(title="t", question="q", command="c", runs=None, curves=None)
        panels = report.plots[0].figure.axes
        assert [axes.get_title("left").strip() for axes in panels] == ["easy"] and "parameters" in panels[
            0
        ].get_xlabel()

    def test_refuses(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="resamples=0 must be at least 1"):
            Published(scores="a.csv", resamples=0)
        with pytest.raises(TableError, match="hrad"):
            Published(scores=str(self.scores(tmp_path)), tasks=("hrad",)).report(title="t", question="q")


def test_what_is_trained_is_found_again(tmp_path: Path) -> None:
    """From runs themselves to the report, with the measures' own names."""
    from lm.sweep.execute import Worker
    from lm.sweep.manifest import manifest
    from lm.sweep.tables import runs_table
    from lm.train.loop import Machine

    task = ModularArithmetic(modulus=7)
    base = Run(
        model=Decoder(vocab=task.vocab, width=8, layers=1, block=Block(mixer=mha(2), ff=None)),
        data=TaskData(task=task, batch=4, heldout=0.3, test=8),
        train=Training(steps=2),
        record=Recording(every=1, heldout_rows=8, measures=(Answers(examples=8), Positions(examples=8))),
    )
    made = Emergence(
        base=base,
        arms={"only": {}},
        panels=(Panel(title="a", metrics=("heldout.accuracy", "train.accuracy", "answers.exact", "positions.loss")),),
        claims=(Reaches(expected="it does", series="only", metric="heldout.loss", level=1e3, rising=False),),
        profile="positions",
        seeds=1,
    )
    entries = manifest(made, tmp_path)
    Worker(entries, Machine(quiet=True), tmp_path / "speeds.jsonl", say=lambda _: None).work()
    tables = {"runs": runs_table(entries, made), "curves": curves_table(entries), "details": details_table(entries)}
    report = made.report(title="t", question="q", **tables)
    assert "Of 1 expectation 1 held" in report.text()
    panels = next(p for p in report.plots if p.name == "panels").figure
    assert not panels.axes[0].texts  # all was measured
    rows = [json.loads(line) for line in entries[0].folder.details.read_text().splitlines()]
    profile = tables["details"].loc[lambda t: (t["split"] == "positions") & (t["name"] == "loss")]
    assert profile["value"].tolist() == [row for row in rows if row["split"] == "positions"][-1]["loss"]
