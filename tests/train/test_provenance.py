"""What a run records of the code and machine it ran on."""

import json
import subprocess
from pathlib import Path

import jax
import pytest

from lm.train import provenance as module
from lm.train.provenance import provenance


def git(folder: Path, *command: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    return subprocess.run(["git", *identity, *command], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    root = tmp_path / "repository"
    (root / "experiments").mkdir(parents=True)
    git(root, "init", "-q")
    (root / "a.py").write_text("one = 1\n")
    (root / ".gitignore").write_text("*.log\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


def test_a_clean_commit(repository):
    state = provenance(repository)["git"]
    assert state == {"commit": git(repository, "rev-parse", "HEAD").strip(), "dirty": False, "patch": ""}


def test_the_patch_brings_the_commit_to_what_ran(repository, tmp_path):
    (repository / "a.py").write_text("one = 2\n")
    (repository / "experiments" / "new é.py").write_text("two = 'é'\n")
    (repository / "run.log").write_text("ignored")
    state = provenance(repository / "experiments")["git"]
    assert state["dirty"] and "ignored" not in state["patch"]
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(repository), str(clone))
    (clone / ".patch").write_text(state["patch"])
    git(clone, "apply", ".patch")
    assert (clone / "a.py").read_text() == "one = 2\n"
    assert (clone / "experiments" / "new é.py").read_text() == "two = 'é'\n"
    assert git(repository, "status", "--short").split()[:2] == ["M", "a.py"]  # nothing was staged


def test_a_long_patch_is_cut_and_says_so(repository, monkeypatch):
    monkeypatch.setattr(module, "PATCH_LIMIT", 50)
    (repository / "a.py").write_text("one = 2\n" * 100)
    state = provenance(repository)["git"]
    assert len(state["patch"]) == 50 and state["patch_cut"] is True


def test_outside_git_and_before_the_first_commit_there_is_none(tmp_path):
    assert "git" not in provenance(tmp_path)
    git(tmp_path, "init", "-q")
    assert "git" not in provenance(tmp_path)


def test_versions_devices_and_flags(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_EXAMPLE_FLAG", "7")
    monkeypatch.setenv("SOME_TOKEN", "secret")
    facts = provenance(tmp_path)
    assert facts["packages"]["jax"] == jax.__version__
    assert {"optax", "flax", "orbax-checkpoint"} <= set(facts["packages"])
    assert sum(facts["devices"].values()) == jax.device_count() and facts["backend"] == "cpu"
    assert facts["environment"]["JAX_EXAMPLE_FLAG"] == "7" and "XLA_FLAGS" in facts["environment"]
    assert "secret" not in json.dumps(facts)
