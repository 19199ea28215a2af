"""A Slurm cluster of two nodes on this machine, for tests: no systemd, nothing of the machine's own configuration.

    python tools/slurm_cluster.py start FOLDER      # prints: export SLURM_CONF=...
    python tools/slurm_cluster.py status FOLDER
    python tools/slurm_cluster.py stop FOLDER

munged, slurmctld and slurmd for nodes n1 and n2 (2 CPUs each, whatever the machine has) run on loopback, with keys,
ports, logs and state of their own in FOLDER. Partition `low` is the default; jobs in `high` preempt its jobs. Needs
root and Debian's packages slurmctld, slurmd, slurm-client and munge.

How jobs end here (Slurm 22.05), which a launcher has to know:

- `scontrol requeue` and `scancel` send SIGTERM to all processes of a job, and SIGKILL after the grace time.
- Preemption sends SIGTERM at once to what `srun` started, and nothing to the batch script itself. A job that then ends
  by itself is over, COMPLETED or FAILED; it comes back only if it calls `scontrol requeue $SLURM_JOB_ID` before.
  A job that doesn't end is requeued when Slurm next looks at time limits, up to 30 seconds after its grace time.
- A requeued job starts about 6 seconds later: Slurm waits for its old credential to expire (`cred_expire`, which is
  two minutes unless set).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lm.errors import UserError

NODES = ("n1", "n2")
PACKAGES = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "srun": "slurm-client"}
GRACE = 5  # seconds between SIGTERM and SIGKILL
START_TIMEOUT = 20.0  # seconds; it takes one
LONGEST_FOLDER = 70  # characters: a job's socket lies 30 below, and Linux takes 107

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait={grace}
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
SlurmdSpoolDir={folder}/spool/%n
StateSaveLocation={folder}/state
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory={memory} State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory={memory} State=UNKNOWN
PartitionName=low Nodes=n[1-2] Default=YES State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace}
PartitionName=high Nodes=n[1-2] State=UP PriorityTier=10 PreemptMode=OFF
"""


class ClusterError(UserError):
    """Why there is no cluster here, and what to do."""


@dataclass(frozen=True)
class Cluster:
    """The cluster that lives in a folder."""

    folder: Path

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    def environment(self) -> dict[str, str]:
        """What Slurm's commands need to speak to this cluster, and nothing that is left of another."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
        return {**kept, "PATH": _path(), "SLURM_CONF": str(self.conf)}

    def start(self, grace: int = GRACE) -> None:
        """Starts all daemons and waits until both nodes take jobs. Raises ClusterError, and then leaves none."""
        check_machine()
        self._check_folder()
        for name in ("log", "spool", "state"):
            (self.folder / name).mkdir(parents=True)
        key = os.open(self.folder / "munge.key", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(key, os.urandom(128))
        os.close(key)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
        values = {"host": socket.gethostname(), "ports": _free_ports(3), "folder": self.folder}
        self.conf.write_text(CONF.format(grace=grace, memory=memory, **values))
        try:
            for name, command in self._commands().items():
                self._launch(name, command)
            if not _wait(lambda: self._idle() == len(NODES), START_TIMEOUT):
                raise ClusterError(f"the nodes did not come up in {START_TIMEOUT:.0f} s; {self._last_words()}")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> tuple[str, ...]:
        """Ends every process of this cluster, its jobs too, and says which. The folder stays, for its logs."""
        ended = []
        for name in reversed(tuple(self._commands())):  # munged last: the others speak through it
            pid = self._pid(name)
            if pid is None:
                continue
            _end(pid, signal.SIGTERM)
            if not _wait(lambda pid=pid: not _alive(pid), 10.0):
                _end(pid, signal.SIGKILL)
            ended.append(name)
        steps = _steps(self.folder)
        for pid in [child for step in steps for child in _descendants(step)] + steps:
            _end(pid, signal.SIGKILL)
        if not _wait(lambda: not _steps(self.folder), 10.0):
            raise ClusterError(f"processes {_steps(self.folder)} of the cluster in {self.folder} don't end")
        return (*ended, *(f"job process {pid}" for pid in steps))

    def status(self) -> str:
        """Which daemons run, and Slurm's own view of nodes and jobs."""
        lines = []
        for name in self._commands():
            pid = self._pid(name)
            lines.append(f"{name}: " + (f"runs as process {pid}" if pid else "not running"))
        if self._pid("slurmctld"):
            lines += [self._ask("sinfo", "--Node"), self._ask("squeue")]
        return "\n".join(lines)

    def _commands(self) -> dict[str, list[str]]:
        """The daemons in the order they are started. Each goes to the background when it is ready."""
        munge = {
            "key-file": "munge.key",
            "socket": "munge.socket",
            "pid-file": "munged.pid",
            "log-file": "log/munged.log",
            "seed-file": "munge.seed",
        }
        # forced: munged wants folders that all users can enter, and here all users are root
        munged = ["munged", "--force", *(f"--{option}={self.folder / name}" for option, name in munge.items())]
        nodes = {f"slurmd.{node}": ["slurmd", "-f", str(self.conf), "-N", node] for node in NODES}
        return {"munged": munged, **nodes, "slurmctld": ["slurmctld", "-f", str(self.conf)]}

    def _launch(self, name: str, command: list[str]) -> None:
        with (self.folder / "log" / f"{name}.out").open("wb") as out:  # a pipe would stay open in the daemon
            done = subprocess.run(command, env=self.environment(), stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise ClusterError(f"{name} does not start; {self._last_words()}")

    def _check_folder(self) -> None:
        if len(str(self.folder)) > LONGEST_FOLDER:
            raise ClusterError(f"{self.folder} is longer than {LONGEST_FOLDER} characters, too long for sockets in it")
        if self.folder.exists() and any(self.folder.iterdir()):
            raise ClusterError(f"{self.folder} is not empty; stop the cluster in it and remove it, or name another")

    def _pid(self, name: str) -> int | None:
        """The process of a daemon, if it runs. A pid file alone proves nothing: its number may be another's by now."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.folder / f"{name}.pid").read_text())
            if _alive(pid) and str(self.folder) in Path(f"/proc/{pid}/cmdline").read_text():
                return pid
        return None

    def _idle(self) -> int:
        return self._ask("sinfo", "--noheader", "--Node", "--partition=low", "--states=idle").count("\n")

    def _ask(self, *command: str) -> str:
        return subprocess.run(command, env=self.environment(), capture_output=True, text=True).stdout

    def _last_words(self) -> str:
        """The last line that says error in each log."""
        found = []
        for log in sorted((self.folder / "log").iterdir()):
            lines = [line for line in log.read_text(errors="replace").splitlines() if "rror" in line]
            found += [f"{log.name}: {lines[-1]}"] if lines else []
        return "; ".join(found) or f"its logs are in {self.folder / 'log'}"


@contextlib.contextmanager
def cluster(grace: int = GRACE) -> Iterator[Cluster]:
    """A cluster for the time of a `with`, in a folder of its own that is removed with it."""
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        made = Cluster(Path(folder).resolve())
        made.start(grace)
        try:
            yield made
        finally:
            made.stop()


def check_machine() -> None:
    """Raises ClusterError where no cluster can be: Slurm's packages are missing, or this user isn't root."""
    missing = sorted({package for name, package in PACKAGES.items() if shutil.which(name, path=_path()) is None})
    if missing:
        raise ClusterError(f"Slurm is not installed here: apt-get install --no-install-recommends {' '.join(missing)}")
    if os.geteuid() != 0:
        raise ClusterError("only root can start Slurm's daemons; run it as root, in a container for example")


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:  # all held at once, so that they differ
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _end(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _stat(pid: int) -> tuple[str, int] | None:
    """State and parent of a process. Its name, which comes before them, may have spaces and brackets in it."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return state, int(parent)


def _alive(pid: int) -> bool:
    found = _stat(pid)
    return found is not None and found[0] not in "ZX"  # one that has ended may wait for its parent to ask


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _steps(folder: Path) -> list[int]:
    """The processes that run the jobs' steps; slurmd starts them beside itself, in the folder of its log."""
    found = []
    for pid in filter(_alive, _processes()):
        with contextlib.suppress(OSError):
            place, program = Path(os.readlink(f"/proc/{pid}/cwd")), Path(os.readlink(f"/proc/{pid}/exe"))
            if place.is_relative_to(folder) and program.name.startswith("slurmstepd"):
                found.append(pid)
    return found


def _descendants(pid: int) -> list[int]:
    parents = {one: found[1] for one in _processes() if (found := _stat(one)) is not None}
    children = [one for one, parent in parents.items() if parent == pid]
    return children + [grandchild for child in children for grandchild in _descendants(child)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("action", choices=("start", "status", "stop"))
    parser.add_argument("folder", type=Path, help="where the cluster lives; new or empty to start one")
    parser.add_argument("--grace", type=int, default=GRACE, help="seconds between SIGTERM and SIGKILL (default 5)")
    options = parser.parse_args(arguments)
    chosen = Cluster(options.folder.resolve())
    try:
        if options.action == "start":
            chosen.start(options.grace)
            print(f"export SLURM_CONF={chosen.conf}")
        elif options.action == "status":
            print(chosen.status())
        else:
            print(f"stopped: {', '.join(chosen.stop()) or 'nothing ran'}")
    except UserError as error:
        print(f"slurm_cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
