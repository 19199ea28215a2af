"""Training one run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lm.commands.options import OfExperiment, OnMachine
from lm.config import override


@dataclass(frozen=True, kw_only=True)
class Train(OfExperiment, OnMachine):
    """Train the base run of an experiment file, or continue it; or do the run of another folder again.

    lm train experiments/attention_ablation.py train.steps=100 model.block.mixer.kv_heads=2
    lm train /elsewhere/runs/ID
    """

    out: str | None = None
    """The run's folder. Default: RESULTS/runs/ID, where ID is the hash of the run's config and data."""

    def __call__(self) -> int:
        from lm import data
        from lm.sweep import file
        from lm.train import hosts
        from lm.train.folder import RunFolder
        from lm.train.loop import train

        machine = self.machine()  # before anything asks JAX for its devices
        given = Path(self.file)
        base = RunFolder(given).config() if given.is_dir() else file.load(given, self.preset).experiment.base
        base = override(base, self.overrides)
        name = base.id(data.fingerprint(base.data))
        folder = Path(self.out) if self.out else Path(self.results) / "runs" / name
        result = train(base, folder, machine)
        said = f"held-out loss {result['heldout_loss']:.4f} nats/token, {result['heldout_bpb']:.4f} bits/byte: {folder}"
        if hosts.first():
            print(said)
        return 0
