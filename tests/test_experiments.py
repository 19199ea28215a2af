"""Every experiment file runs from end to end, smaller than its smoke preset."""

from pathlib import Path

import pytest

from lm import cli
from lm.sweep import file

ROOT = Path(__file__).parents[1]
FILES = sorted(p for p in (ROOT / "experiments").rglob("*.py") if p.name != "base.py")

# small enough for a test: what is run is the file, what is proved about its result is nothing
TINY = (
    "base.train.steps=2",
    "base.train.schedule.warmup=0",
    "base.model.width=64",
    "base.model.layers=1",
    "base.data.length=16",
    "base.data.batch=2",
    "base.record.heldout_rows=2",
    "seeds=2",
)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_experiment(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    relative = path.relative_to(ROOT)
    overrides = [*TINY, *(["decode_contexts=(8,)"] if "decode_contexts" in path.read_text() else [])]
    with pytest.raises(SystemExit) as end:
        cli.main(
            ["sweep", "run", str(relative), *overrides, "--preset", "smoke", "--quiet", "--results", str(tmp_path)]
        )
    out, err = capsys.readouterr()
    assert end.value.code == 0, err
    (folder,) = tmp_path.glob(f"{path.stem}-smoke-*")  # the last part is of the overrides
    assert (folder / "report.html").stat().st_size > 10_000
    experiment = file.load(relative, "smoke", overrides).experiment
    for arm in experiment.arms_resolved():
        assert arm in out


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_header_says_what_and_how(path):
    text = path.read_text()
    assert f"lm sweep run {path.relative_to(ROOT)}" in text
    assert "--preset smoke" in text
