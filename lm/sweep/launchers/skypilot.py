"""Workers through SkyPilot, which finds them machines in a cloud, on Kubernetes or on Slurm: rendered as a task.

A worker is a managed job: SkyPilot starts it again elsewhere when its machine is taken away. `sky jobs launch` makes as
many jobs of one task as it is told to, each on machines of its own. Fields and commands are those of SkyPilot 0.14
(docs.skypilot.co, "Task YAML").
"""

from __future__ import annotations

import re
import shlex
from dataclasses import field
from pathlib import Path
from typing import Any

from lm.config import ConfigError, config
from lm.errors import unknown
from lm.sweep.launchers.base import Rendered
from lm.sweep.launchers.names import LONGEST, fitted
from lm.sweep.launchers.storage import Bucket, Volume, check_seen
from lm.sweep.launchers.text import to_yaml
from lm.sweep.launchers.work import COORDINATOR, PORT, PROCESS, PROCESSES, Work
from lm.train.signals import STOPPED

CLOUDS = (  # those of SkyPilot 0.14
    *("kubernetes", "k8s", "slurm", "ssh", "aws", "azure", "gcp", "oci", "ibm", "lambda", "nebius", "runpod", "vast"),
    *("do", "paperspace", "cudo", "fluidstack", "hyperbolic", "mithril", "primeintellect", "scp", "seeweb"),
    *("shadeform", "verda", "vsphere", "yotta"),
)
INSTALL_UV = "command -v uv > /dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh"
ACTIVATE = "source .venv/bin/activate"
JOIN = f"""\
if [ "${{SKYPILOT_NUM_NODES:-1}}" -gt 1 ]; then
  export {COORDINATOR}="$(echo "$SKYPILOT_NODE_IPS" | head -n 1):{PORT}"
  export {PROCESSES}="$SKYPILOT_NUM_NODES"
  export {PROCESS}="$SKYPILOT_NODE_RANK"
  set -- --distributed
fi"""


@config
class SkyPilot(Rendered):
    """What every worker gets. `render` gives a task for `sky jobs launch`, `apply` that command."""

    infra: str
    """Where: cloud, or cloud/region, or cloud/region/zone, e.g. gcp/us-central1, kubernetes, kubernetes/my-context,
    slurm/my-cluster, or * for wherever it is cheapest."""
    results: Volume | Bucket | None
    """Where the results folder, and the manifest in it, are kept. None: every machine has it at one path already, as
    on the shared file system of a Slurm cluster."""
    accelerators: str | None = None
    """SkyPilot's name and their number on a machine, e.g. H100:8 or tpu-v5litepod-8; `sky gpus list` has them all.
    None: CPUs only."""
    hosts: int = 1
    """Machines of a worker, with a process on each. A TPU slice is one machine here, however many hosts it has."""
    cpus: str | None = None
    """Cores of a machine: 8, or 8+ for at least 8."""
    memory: str | None = None
    """Memory of a machine in GB: 64, or 64+ for at least 64."""
    spot: bool = False
    """On spot machines: cheaper, and taken away at any time."""
    restarts: int = 3
    """How often a worker that failed is started again. A machine that is taken away doesn't count."""
    image: str | None = None
    """A container image with `lm` and the experiment's own modules in it. None: the folder that the task is launched
    from is uploaded and installed with uv."""
    packages: tuple[str, ...] | None = None
    """What is installed beside it. None: JAX for the accelerators."""
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cloud = self.infra.split("/")[0]
        if cloud.lower() not in (*CLOUDS, "*"):
            raise ConfigError(unknown(cloud, CLOUDS, "SkyPilot has no infra"))
        if "" in self.infra.split("/") or (cloud.lower() not in ("kubernetes", "k8s") and self.infra.count("/") > 2):
            raise ConfigError(f"infra must be like cloud, cloud/region or cloud/region/zone, got '{self.infra}'")
        if self.accelerators is not None and not re.fullmatch(r"[A-Za-z][\w.-]*(:[1-9]\d*)?", self.accelerators):
            raise ConfigError(f"accelerators must be like H100:8 or tpu-v5litepod-8, got '{self.accelerators}'")
        for name in ("cpus", "memory"):
            value = getattr(self, name)
            if value is not None and not re.fullmatch(r"[1-9]\d*\+?", value):
                raise ConfigError(f"{name} must be a number like 8, or 8+ for at least 8, got '{value}'")
        if self.hosts < 1 or self.restarts < 0:
            raise ConfigError("hosts must be at least 1, and restarts at least 0")
        if self.image is not None and self.packages is not None:
            raise ConfigError("packages are installed only where there is no image; put them into the image")

    @property
    def tpu(self) -> bool:
        return self.accelerators is not None and self.accelerators.lower().startswith("tpu")

    def render(self, work: Work) -> str:
        """The task, as YAML. Raises LaunchError where the work and these resources don't fit."""
        if self.results is not None:
            check_seen(work, self.results)
        task: dict[str, Any] = {"name": fitted(work.name, LONGEST), "resources": self._resources()}
        if self.hosts > 1:
            task["num_nodes"] = self.hosts
        if self.image is None:
            task["workdir"] = "."
        task["envs"] = {"JAX_PLATFORMS": self._platform()} | self.env
        task |= self._mounts()
        if self.image is None:
            task["setup"] = self._setup()
        task["run"] = self._run(work)
        header = f"A worker of the sweep {work.name}.\n{shlex.join(self.apply(work, 'THIS_FILE'))}"
        return to_yaml([task], header)

    def seen(self, manifest: Path) -> Path:
        return manifest if self.results is None else self.results.seen(manifest)

    def apply(self, work: Work, path: str) -> tuple[str, ...]:
        return ("sky", "jobs", "launch", "--num-jobs", str(work.workers), path)

    def _resources(self) -> dict[str, Any]:
        # the exit code of a worker that was told to stop, by whatever it was: no fault, so not one of its restarts
        recovery = {"max_restarts_on_errors": self.restarts, "recover_on_exit_codes": [STOPPED]}
        found = {
            "infra": self.infra,
            "accelerators": self.accelerators,
            "cpus": self.cpus,
            "memory": self.memory,
            "use_spot": self.spot or None,
            "image_id": None if self.image is None else f"docker:{self.image}",
            "job_recovery": recovery,
        }
        return {key: value for key, value in found.items() if value is not None}

    def _platform(self) -> str:
        """JAX is told its platform: where the device isn't found it must fail, not go on with the CPU."""
        return "cpu" if self.accelerators is None else "tpu,cpu" if self.tpu else "cuda,cpu"

    def _mounts(self) -> dict[str, Any]:
        if isinstance(self.results, Volume):
            return {"volumes": {self.results.mount: self.results.name}}
        if isinstance(self.results, Bucket):
            # MOUNT: what one worker writes is seen by the others. MOUNT_CACHED would keep it back for a while
            return {"file_mounts": {self.results.mount: {"source": self.results.url, "mode": "MOUNT"}}}
        return {}

    def _setup(self) -> str:
        packages = self.packages
        if packages is None:
            packages = () if self.accelerators is None else ("jax[tpu]",) if self.tpu else ("jax[cuda12]",)
        install = shlex.join(["uv", "pip", "install", "--quiet", "--editable", ".", *packages])
        path = 'export PATH="$HOME/.local/bin:$PATH"'
        return "\n".join([INSTALL_UV, path, "uv venv --quiet --allow-existing", ACTIVATE, install]) + "\n"

    def _run(self, work: Work) -> str:
        """A task is the same for all its jobs, so each asks SkyPilot for its number."""
        command = shlex.join(work.command)
        if work.workers > 1:
            command += f' --share {work.workers} --first "${{SKYPILOT_JOB_RANK:-0}}"'
        lines = [JOIN, f'{command} "$@"']
        return "\n".join([ACTIVATE, *lines] if self.image is None else lines) + "\n"
