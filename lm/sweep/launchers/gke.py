"""Workers on Google Kubernetes Engine, rendered as JobSets that a Kueue queue admits.

Each worker is a JobSet of its own with one Job in it, of one pod a host, because workers have nothing to do with one
another: Kueue admits a JobSet whole or not at all, a JobSet restarts whole, and GKE tells the jobs of one JobSet on
TPUs to act as one multislice program. Kinds and fields: jobset.x-k8s.io/v1alpha2 (restarts that don't count: JobSet
0.6 and later), batch/v1 pod failure policies (Kubernetes 1.31), GKE's node labels ("Plan TPUs in GKE", "GPUs in GKE").
"""

from __future__ import annotations

import re
from dataclasses import field
from pathlib import Path
from typing import Any

from lm.config import ConfigError, config
from lm.sweep.launchers.base import Rendered
from lm.sweep.launchers.names import LONGEST, fitted
from lm.sweep.launchers.storage import Bucket, Volume, check_seen
from lm.sweep.launchers.text import to_yaml
from lm.sweep.launchers.tpu import TPU
from lm.sweep.launchers.work import COORDINATOR, PORT, PROCESS, PROCESSES, Work
from lm.train.signals import STOPPED

# node label cloud.google.com/gke-accelerator -> GPUs of the largest machine that has it
GPUS = {
    "nvidia-tesla-t4": 4,
    "nvidia-tesla-v100": 8,
    "nvidia-l4": 8,
    "nvidia-tesla-a100": 16,
    "nvidia-a100-80gb": 8,
    "nvidia-h100-80gb": 8,
    "nvidia-h100-mega-80gb": 8,
    "nvidia-h200-141gb": 8,
    "nvidia-b200": 8,
    "nvidia-gb200": 4,
    "nvidia-rtx-pro-6000": 8,
}
JOB = "worker"  # the name of the one job of a JobSet, and of its container
INSTANCE = "app.kubernetes.io/instance"
INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
SUFFIX = 6  # '-' and five letters that end the name of a pod
# A folder several machines write to: nothing that one of them saw may be remembered. On large machines Cloud Storage
# FUSE remembers for ever unless told.
BUCKET_OPTIONS = "implicit-dirs,metadata-cache:ttl-secs:0,metadata-cache:negative-ttl-secs:0"


@config
class GPU:
    """NVIDIA GPUs. One worker has all of them, with a process on each of its hosts."""

    kind: str
    """The node label cloud.google.com/gke-accelerator, e.g. nvidia-h100-80gb."""
    count: int = 1
    """GPUs of a host."""
    hosts: int = 1
    """More than one speak over the plain network: GPUDirect needs what a cluster's owner adds to its pods."""

    def __post_init__(self) -> None:
        if self.kind not in GPUS:
            raise ConfigError(f"GKE has no GPU '{self.kind}'; it has {', '.join(GPUS)}")
        if not 1 <= self.count <= GPUS[self.kind]:
            raise ConfigError(f"a host has 1 to {GPUS[self.kind]} GPUs {self.kind}, not {self.count}")
        if self.hosts < 1:
            raise ConfigError(f"a worker needs at least one host, got hosts={self.hosts}")


@config
class GKE(Rendered):
    """What every worker gets. `render` gives the text for `kubectl apply -f`."""

    image: str
    """A container image with `lm` and the experiment's own modules in it."""
    results: Volume | Bucket
    """Where the results folder, and the manifest in it, are kept. A Volume names a PersistentVolumeClaim."""
    device: TPU | GPU | None = None
    """None: CPUs only."""
    cpu: int | None = None
    """Cores asked for, for each host."""
    memory: str | None = None
    """Memory for each host, e.g. 64Gi; a pod that takes more is killed."""
    namespace: str = "default"
    queue: str | None = None
    """Kueue's LocalQueue in that namespace. None: Kueue, where there is one, has no say."""
    priority: str | None = None
    """Kueue's WorkloadPriorityClass."""
    spot: bool = False
    """On Spot VMs: cheaper, and taken away with at most 25 seconds' notice, whatever `grace` says."""
    grace: int = 120
    """Seconds a worker has to save in, between SIGTERM and SIGKILL."""
    restarts: int = 3
    """How often a worker that failed is started again. Stopping, eviction and preemption don't count."""
    service_account: str | None = None
    """Kubernetes' account of the pods; it has to have access to a bucket."""
    env: dict[str, str] = field(default_factory=dict)
    """More environment variables; they go before those set here."""

    def __post_init__(self) -> None:
        if self.device is None and (self.cpu is None or self.memory is None):
            raise ConfigError("a worker without device needs cpu and memory, e.g. cpu=8, memory='32Gi'")
        if self.memory is not None and not re.fullmatch(r"[1-9]\d*(Mi|Gi|Ti|M|G|T)", self.memory):
            raise ConfigError(f"memory must be like 64Gi or 512Mi, got '{self.memory}'")
        if isinstance(self.results, Bucket) and self.results.scheme != "gs":
            raise ConfigError(f"GKE mounts buckets of Cloud Storage, gs://..., not {self.results.url}")
        if self.priority is not None and self.queue is None:
            raise ConfigError("priority is Kueue's: name the queue too")
        if (self.cpu is not None and self.cpu < 1) or self.restarts < 0 or self.grace < 1:
            raise ConfigError("cpu and grace must be at least 1, and restarts at least 0")

    @property
    def hosts(self) -> int:
        """Hosts of a worker."""
        return 1 if self.device is None else self.device.hosts

    def render(self, work: Work) -> str:
        """One JobSet a worker, as YAML. Raises LaunchError where the work and these resources don't fit."""
        check_seen(work, self.results)
        suffix = f"-{work.workers - 1}-{JOB}-0-{self.hosts - 1}"
        name = fitted(work.name, LONGEST - len(suffix) - SUFFIX)
        header = (
            f"{work.workers} workers of the sweep {work.name}, each a JobSet of its own.\n"
            f"kubectl apply -f THIS_FILE\n"
            f"kubectl delete jobset --namespace {self.namespace} --selector {INSTANCE}={name}"
        )
        return to_yaml([self._job_set(work, name, number) for number in range(work.workers)], header)

    def seen(self, manifest: Path) -> Path:
        return self.results.seen(manifest)

    def apply(self, work: Work, path: str) -> tuple[str, ...]:
        return ("kubectl", "apply", "-f", path)

    def _job_set(self, work: Work, instance: str, number: int) -> dict[str, Any]:
        name, command = f"{instance}-{number}", work.worker(number, self.hosts)
        labels = {"app.kubernetes.io/name": "lm", INSTANCE: instance}
        kueue = {"kueue.x-k8s.io/queue-name": self.queue, "kueue.x-k8s.io/priority-class": self.priority}
        metadata: dict[str, Any] = {
            "name": name,
            "namespace": self.namespace,
            "labels": {**labels, **{key: value for key, value in kueue.items() if value is not None}},
        }
        if isinstance(self.device, TPU) and self.hosts > 1:
            # the hosts of a slice are a node pool: a job gets one, whole and for itself
            metadata["annotations"] = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
        rule = {
            "name": "stopped",
            "action": "RestartJobSetAndIgnoreMaxRestarts",
            "onJobFailureReasons": ["PodFailurePolicy"],
        }
        job = {"name": JOB, "replicas": 1, "template": {"spec": self._job(command, labels, name)}}
        return {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": metadata,
            "spec": {
                "failurePolicy": {"maxRestarts": self.restarts, "rules": [rule]},
                "replicatedJobs": [job],
            },
        }

    def _job(self, command: tuple[str, ...], labels: dict[str, str], name: str) -> dict[str, Any]:
        """One pod a host. The first that ends badly ends the job: the hosts of a program can't go on without one."""
        stopped = {"containerName": JOB, "operator": "In", "values": [STOPPED]}
        return {
            "parallelism": self.hosts,
            "completions": self.hosts,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "podFailurePolicy": {  # these two are no faults: the rule of the JobSet knows them by PodFailurePolicy
                "rules": [
                    {"action": "FailJob", "onExitCodes": stopped},
                    {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": {"metadata": self._pod_metadata(labels), "spec": self._pod(command, name)},
        }

    def _pod_metadata(self, labels: dict[str, str]) -> dict[str, Any]:
        mounts = {"annotations": {"gke-gcsfuse/volumes": "true"}} if isinstance(self.results, Bucket) else {}
        return {"labels": labels, **mounts}

    def _pod(self, command: tuple[str, ...], name: str) -> dict[str, Any]:
        pod: dict[str, Any] = {"restartPolicy": "Never", "terminationGracePeriodSeconds": self.grace}
        if self.service_account is not None:
            pod["serviceAccountName"] = self.service_account
        if selector := self._node_selector():
            pod["nodeSelector"] = selector
        if self.spot:
            taint = {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
            pod["tolerations"] = [taint]
        pod["containers"] = [
            {
                "name": JOB,
                "image": self.image,
                "command": list(command),
                "env": self._env(name),
                "resources": self._resources(),
                "volumeMounts": [{"name": "results", "mountPath": self.results.mount}],
            }
        ]
        pod["volumes"] = [{"name": "results", **self._volume()}]
        return pod

    def _node_selector(self) -> dict[str, str]:
        found = {}
        if isinstance(self.device, TPU):
            found["cloud.google.com/gke-tpu-accelerator"] = self.device.label
            found["cloud.google.com/gke-tpu-topology"] = self.device.topology
        elif isinstance(self.device, GPU):
            found["cloud.google.com/gke-accelerator"] = self.device.kind
        return found | ({"cloud.google.com/gke-spot": "true"} if self.spot else {})

    def _resources(self) -> dict[str, Any]:
        devices: dict[str, int] = {}
        if isinstance(self.device, TPU):
            devices["google.com/tpu"] = self.device.chips
        elif isinstance(self.device, GPU):
            devices["nvidia.com/gpu"] = self.device.count
        memory = {} if self.memory is None else {"memory": self.memory}
        requests = {} if self.cpu is None else {"cpu": self.cpu}
        found = {"requests": requests | memory, "limits": memory | devices}
        return {kind: amounts for kind, amounts in found.items() if amounts}

    def _env(self, name: str) -> list[dict[str, Any]]:
        """JAX is told its platform: where the device isn't found it must fail, not go on with the CPU."""
        platform = {TPU: "tpu,cpu", GPU: "cuda,cpu"}.get(type(self.device), "cpu")
        values = {"JAX_PLATFORMS": platform}
        if isinstance(self.device, GPU):
            values["LD_LIBRARY_PATH"] = "/usr/local/nvidia/lib64"  # where GKE puts the driver
        found = [{"name": key, "value": value} for key, value in (values | self.env).items()]
        if self.hosts > 1:
            found += [
                {"name": COORDINATOR, "value": f"{name}-{JOB}-0-0.{name}:{PORT}"},
                {"name": PROCESSES, "value": str(self.hosts)},
                {"name": PROCESS, "valueFrom": {"fieldRef": {"fieldPath": INDEX}}},
            ]
        return found

    def _volume(self) -> dict[str, Any]:
        if isinstance(self.results, Volume):
            return {"persistentVolumeClaim": {"claimName": self.results.name}}
        options = BUCKET_OPTIONS + (f",only-dir={self.results.folder}" if self.results.folder else "")
        attributes = {"bucketName": self.results.name, "mountOptions": options}
        return {"csi": {"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": attributes}}
