"""Reading an experiment file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import shlex
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from lm.config import ConfigError, override, replace, unknown
from lm.errors import UserError
from lm.sweep.experiment import Experiment


@dataclass(frozen=True)
class ExperimentFile:
    """An experiment with what its file says of it: a name, and the question its header asks."""

    path: Path
    name: str
    question: str
    command: str
    experiment: Experiment

    def to(self, action: str) -> str:
        """The command line that does something else with the same experiment."""
        return self.command.replace("lm sweep run", f"lm sweep {action}", 1)


def load(path: str | Path, preset: str | None = None, overrides: Sequence[str] = ()) -> ExperimentFile:
    """The value `experiment` of a file, with one of the file's `presets` and then overrides applied.

    Raises UserError, with the file's own line, if the file can't be run or holds no experiment.
    """
    path = Path(path)
    module = _module(path)
    experiment = getattr(module, "experiment", None)
    if not isinstance(experiment, Experiment):
        raise UserError(f"{path} defines no experiment; it must end with: experiment = Sweep(...) or Ablation(...)")
    presets = getattr(module, "presets", {})
    if preset is not None:
        if preset not in presets:
            raise ConfigError(unknown(preset, presets, f"{path} has no preset"))
        experiment = replace(experiment, presets[preset])
    experiment = override(experiment, tuple(overrides))
    # what was changed is in the name, so that its report doesn't take the place of the file's own
    changed = hashlib.blake2b("\0".join(overrides).encode(), digest_size=3).hexdigest() if overrides else ""
    name = "-".join(filter(None, (path.stem, preset, changed)))
    command = shlex.join(["lm", "sweep", "run", str(path), *overrides, *(("--preset", preset) if preset else ())])
    question = (module.__doc__ or path.stem).strip().split("\n")[0]
    return ExperimentFile(path, name, question, command, experiment)


def _module(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"there is no experiment file {path}")
    root = Path.cwd()
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))  # experiment files import their shared bases: experiments.base
    try:
        name = _dotted(path.resolve(), root)
        if name is not None:
            return importlib.import_module(name)
        name = f"lm_experiment_{path.stem}"  # a name of its own: a file called random.py must not become `random`
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module
    except UserError as error:
        raise type(error)(f"{_place(path, error)}: {error}") from error
    except Exception as error:
        raise UserError(f"{_place(path, error)}: {type(error).__name__}: {error}") from error


def _dotted(path: Path, root: Path) -> str | None:
    """The name under which Python itself finds the file, e.g. experiments.positions; None if it finds another."""
    if not path.is_relative_to(root):
        return None
    parts = path.relative_to(root).with_suffix("").parts
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        return None
    try:
        found = importlib.util.find_spec(".".join(parts))
    except ImportError:
        return None
    return ".".join(parts) if found and found.origin and Path(found.origin).resolve() == path else None


def _place(path: Path, error: BaseException) -> str:
    """file:line of the file's own frame nearest to the error."""
    if isinstance(error, SyntaxError):
        return f"{path}:{error.lineno}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).name == path.name]
    return f"{path}:{lines[-1]}" if lines else str(path)
