"""Every experiment file runs from end to end, smaller than its smoke preset."""

from pathlib import Path

import pytest

from lm import cli
from lm.analysis.emergence import measured
from lm.config import ConfigError, get
from lm.data import Data
from lm.sweep import Emergence, file
from lm.sweep.experiment import Experiment
from lm.sweep.manifest import manifest
from lm.sweep.tables import curves_table, runs_table

ROOT = Path(__file__).parents[1]
FILES = sorted(p for p in (ROOT / "experiments").rglob("*.py") if p.name != "base.py")

# small enough for a test: what is run is the file, what is proved about its result is nothing
TINY = ("base.train.steps=2", "base.train.schedule.warmup=0", "base.data.batch=2", "base.record.heldout_rows=2")
OF_TEXT = ("base.model.width=64", "base.model.layers=1", "base.data.length=16", "seeds=2", "decode_contexts=(8,)")
OF_OTHERS = ("seeds=1", "resamples=5")  # they have the lengths and models that they are about


def tiny(experiment: Experiment) -> list[str]:
    """Those overrides that are of something the experiment has."""
    text = isinstance(getattr(getattr(experiment, "base", None), "data", None), Data)
    return [one for one in (*TINY, *(OF_TEXT if text else OF_OTHERS)) if _has(experiment, one.partition("=")[0])]


def _has(experiment: Experiment, path: str) -> bool:
    try:
        return get(experiment, path) != ()  # an ablation that isn't asked for decoding speeds doesn't get them
    except ConfigError:
        return False


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_experiment(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    relative = path.relative_to(ROOT)
    overrides = tiny(file.load(relative, "smoke").experiment)
    with pytest.raises(SystemExit) as end:
        cli.main(
            ["sweep", "run", str(relative), *overrides, "--preset", "smoke", "--quiet", "--results", str(tmp_path)]
        )
    out, err = capsys.readouterr()
    assert end.value.code == 0, err
    (folder,) = tmp_path.glob(f"{path.stem}-smoke*")
    assert (folder / "report.html").stat().st_size > 10_000
    experiment = file.load(relative, "smoke", overrides).experiment
    for arm in experiment.arms_resolved():
        assert arm in out
    if isinstance(experiment, Emergence):
        all_that_is_named_is_measured(experiment, tmp_path)


def all_that_is_named_is_measured(experiment: Emergence, results: Path) -> None:
    """No panel, claim or verdict asks for what no run records: a wrong name would only be seen after the runs."""
    entries = manifest(experiment, results)
    over = "size" if experiment.over == "params" else experiment.over
    found = measured(runs_table(entries, experiment), curves_table(entries), over, experiment.places())
    for panel in experiment.panels:
        for pattern in (*panel.metrics, *panel.golds):
            assert found.matching(pattern)
    for claim in experiment.claims:
        claim.judge(found)
    for verdict in experiment.verdicts:
        assert found.curves(verdict.hard, verdict.series) and found.curves(verdict.soft, verdict.series)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_header_says_what_and_how(path):
    text = path.read_text()
    assert f"lm sweep run {path.relative_to(ROOT)}" in text
    assert "--preset smoke" in text
