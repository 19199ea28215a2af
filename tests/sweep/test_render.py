"""Rendered launchers: the exact text, the published schemas, names that fit, and values that can't be.

LM_REWRITE_GOLDEN=1 pytest tests/sweep/test_render.py     # after a change that is meant
"""

import copy
import importlib.util
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.config import from_dict, replace, to_dict
from lm.errors import UserError
from lm.sweep.launchers.gke import GKE, GPU
from lm.sweep.launchers.names import LABEL, LONGEST, dns_label, fitted
from lm.sweep.launchers.skypilot import SkyPilot
from lm.sweep.launchers.storage import Bucket, Volume
from lm.sweep.launchers.text import to_yaml
from lm.sweep.launchers.tpu import GENERATIONS, TPU
from lm.sweep.launchers.work import PROCESSES, Work
from lm.train.signals import STOPPED

thorough = settings(max_examples=200, deadline=None, derandomize=True)

GOLDEN = Path(__file__).parent / "golden"
MANIFEST = Path("/results/attention_ablation/manifest.jsonl")
WORK = Work(name="attention-ablation", manifest=MANIFEST, workers=2, options=("--mesh", "fsdp=16"))
VOLUME, BUCKET = Volume(name="lm-results"), Bucket(url="gs://lm-results/sweeps")
CPUS = GKE(image="registry.example/lm:1", results=VOLUME, cpu=8, memory="32Gi")

RENDERED = {
    "gke_cpu": (CPUS, Work(name="positions", manifest=MANIFEST)),
    "gke_tpu": (
        GKE(image="registry.example/lm:1", results=VOLUME, device=TPU(kind="v5e", topology="4x4"), queue="research"),
        WORK,
    ),
    "gke_gpu": (
        GKE(
            image="registry.example/lm:1",
            results=BUCKET,
            device=GPU(kind="nvidia-h100-80gb", count=8, hosts=2),
            cpu=96,
            memory="900Gi",
            namespace="lm",
            queue="research",
            priority="low",
            spot=True,
            grace=25,
            restarts=5,
            service_account="lm",
            env={"NCCL_DEBUG": "WARN"},
        ),
        WORK,
    ),
    "skypilot_gpu": (
        SkyPilot(
            infra="gcp/us-central1",
            results=BUCKET,
            accelerators="H100:8",
            hosts=2,
            spot=True,
            env={"NCCL_DEBUG": "WARN"},
        ),
        WORK,
    ),
    "skypilot_tpu": (SkyPilot(infra="kubernetes", results=VOLUME, accelerators="tpu-v6e-slice:4"), WORK),
    "skypilot_slurm": (
        SkyPilot(infra="slurm/cluster", results=None, cpus="8+", memory="32+", image="registry.example/lm:1"),
        WORK,
    ),
}
ON_GKE = [name for name, (launcher, _) in RENDERED.items() if isinstance(launcher, GKE)]
ON_SKYPILOT = [name for name in RENDERED if name not in ON_GKE]


def documents(text):
    return list(yaml.safe_load_all(text))


@pytest.mark.parametrize("name", RENDERED)
def test_the_exact_text(name):
    launcher, work = RENDERED[name]
    text, golden = launcher.render(work), GOLDEN / f"{name}.yaml"
    if os.environ.get("LM_REWRITE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text(), f"LM_REWRITE_GOLDEN=1 pytest {Path(__file__).name} writes it anew"
    assert from_dict(to_dict(launcher)).render(work) == text


# ---- published schemas --------------------------------------------------------------------------------------


def unknown_to_job_set(document):
    """What the published models of JobSet, Job and Pod don't take: they drop keys they don't know."""
    models = pytest.importorskip("kubeflow_trainer_api.models", reason="pip install kubeflow-trainer-api")
    return differences(document, models.JobsetV1alpha2JobSet.from_dict(copy.deepcopy(document)).to_dict())


def differences(sent, kept, where=""):
    if isinstance(sent, dict) and isinstance(kept, dict):
        inside = [differences(value, kept[key], f"{where}.{key}") for key, value in sent.items() if key in kept]
        return [f"{where}.{key}" for key in sent.keys() ^ kept.keys()] + [line for found in inside for line in found]
    if isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        return [
            line for i, pair in enumerate(zip(sent, kept, strict=True)) for line in differences(*pair, f"{where}.{i}")
        ]
    return [] if sent == kept else [where]


@pytest.mark.parametrize("name", ON_GKE)
def test_job_sets_have_the_published_form(name):
    launcher, work = RENDERED[name]
    found = documents(launcher.render(work))
    assert len(found) == work.workers
    assert [unknown_to_job_set(document) for document in found] == [[]] * work.workers


@pytest.mark.parametrize(
    "place",
    [
        (),
        ("metadata",),
        ("spec", "failurePolicy"),
        ("spec", "replicatedJobs", 0, "template", "spec", "podFailurePolicy", "rules", 0),
        ("spec", "replicatedJobs", 0, "template", "spec", "template", "spec", "containers", 0, "env", 0),
    ],
)
def test_a_key_that_is_not_of_that_form_would_be_noticed(place):
    launcher, work = RENDERED["gke_gpu"]
    document = part = documents(launcher.render(work))[0]
    for key in place:
        part = part[key]
    part["maxRestart"] = 1
    assert unknown_to_job_set(document)


TASKS = """
import sys, yaml, sky
for text in sys.stdin.read().split(chr(0)):
    task = sky.Task.from_yaml_config(yaml.safe_load(text))
    print(task.name, task.num_nodes, len(task.resources), sorted({**task.storage_mounts, **task.volumes}))
"""


@pytest.mark.skipif(importlib.util.find_spec("sky") is None, reason="SkyPilot isn't installed: pip install skypilot")
def test_skypilot_takes_the_tasks(tmp_path):
    texts = [launcher.render(work) for launcher, work in map(RENDERED.get, ON_SKYPILOT)]
    environment = os.environ | {"HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    command = [sys.executable, "-c", TASKS]
    done = subprocess.run(command, input="\0".join(texts), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = [
        f"{work.name} {launcher.hosts} 1 {[launcher.results.mount] if launcher.results else []}"
        for launcher, work in map(RENDERED.get, ON_SKYPILOT)
    ]
    assert done.stdout.splitlines() == expected


# ---- what the text says -------------------------------------------------------------------------------------


@pytest.mark.parametrize("hosts", [1, 64])
@pytest.mark.parametrize("name", ["a", "attention-ablation", "a" * 63, "attention-ablation-" * 9 + "smoke"])
def test_names_fit_and_lead_to_the_first_host(name, hosts):
    work = Work(name=name, manifest=MANIFEST, workers=2)
    found = documents(replace(CPUS, {"device": GPU(kind="nvidia-l4", hosts=hosts)}).render(work))
    names = [document["metadata"]["name"] for document in found]
    assert len(set(names)) == work.workers
    for document, job_set in zip(found, names, strict=True):
        [job] = document["spec"]["replicatedJobs"]
        spec = job["template"]["spec"]
        assert spec["parallelism"] == spec["completions"] == hosts
        last_pod = f"{job_set}-{job['name']}-0-{hosts - 1}-abcde"
        assert LABEL.fullmatch(last_pod) and len(last_pod) <= LONGEST
        [container] = spec["template"]["spec"]["containers"]
        variables = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert ("--distributed" in container["command"]) == (PROCESSES in variables) == (hosts > 1)
        if hosts > 1:
            assert variables["JAX_COORDINATOR_ADDRESS"].startswith(f"{job_set}-{job['name']}-0-0.{job_set}:")
            assert variables[PROCESSES] == str(hosts)


@thorough
@given(st.from_regex(LABEL, fullmatch=True), st.integers(12, 63))
def test_a_name_is_kept_where_it_fits(name, room):
    found = fitted(name, room)
    assert LABEL.fullmatch(found) and len(found) <= room
    assert (found == name) == (len(name) <= room)


@thorough
@given(st.text(min_size=1))
def test_any_name_has_a_label_near_it(text):
    label = dns_label(text)
    assert LABEL.fullmatch(label) and dns_label(label) == label


def test_long_names_stay_apart():
    first, second = (fitted(f"{'attention-ablation-' * 5}{i}", 40) for i in "ab")
    assert first != second and len(first) <= 40 and LABEL.fullmatch(first)


# what YAML 1.2 takes for something else than text (its core schema, section 10.3.2); PyYAML reads 1.1
CORE = re.compile(
    r"~|null|Null|NULL|true|True|TRUE|false|False|FALSE|[-+]?\d+|0o[0-7]+|0x[0-9a-fA-F]+"
    r"|[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.nan|\.NaN|\.NAN"
)


@thorough
@given(
    st.lists(
        st.text(alphabet="0123456789+-.eExo_: nullNtrueyfs\n#'\"", max_size=8) | st.from_regex(CORE, fullmatch=True)
    )
)
def test_text_stays_text_whatever_reads_it(words):
    text = to_yaml([{"words": words}], "header")
    assert documents(text) == [{"words": words}]
    plain = [event.value for event in yaml.parse(text) if isinstance(event, yaml.ScalarEvent) and not event.style]
    assert not [value for value in plain if CORE.fullmatch(value)]


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_task_tells_its_worker_where_it_is(nodes, tmp_path):
    task = documents(RENDERED["skypilot_slurm"][0].render(WORK))[0]
    (tmp_path / "lm").write_text('#!/bin/sh\necho "$@"; env | grep ^JAX_ | sort\n')
    (tmp_path / "lm").chmod(0o755)
    given_by_skypilot = {
        "SKYPILOT_NUM_NODES": str(nodes),
        "SKYPILOT_NODE_IPS": "\n".join(["10.0.0.1", "10.0.0.2"][:nodes]),
        "SKYPILOT_NODE_RANK": str(nodes - 1),
        "SKYPILOT_JOB_RANK": "1",
    }
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **task["envs"], **given_by_skypilot}
    done = subprocess.run(["bash", "-c", task["run"]], env=environment, capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert said[0].split() == ["lm", *WORK.worker(1, hosts=nodes)][2:]
    joined = ["JAX_COORDINATOR_ADDRESS=10.0.0.1:8482", "JAX_NUM_PROCESSES=2", "JAX_PROCESS_ID=1"]
    assert said[1:] == sorted(["JAX_PLATFORMS=cpu", *(joined if nodes > 1 else [])])


def test_a_worker_that_was_stopped_is_no_fault_anywhere():
    for name in ON_GKE:
        launcher, work = RENDERED[name]
        [job] = documents(launcher.render(work))[0]["spec"]["replicatedJobs"]
        rules = job["template"]["spec"]["podFailurePolicy"]["rules"]
        assert any(STOPPED in rule.get("onExitCodes", {}).get("values", ()) for rule in rules)
    for name in ON_SKYPILOT:
        launcher, work = RENDERED[name]
        recovery = documents(launcher.render(work))[0]["resources"]["job_recovery"]
        assert recovery["recover_on_exit_codes"] == [STOPPED]


# ---- TPU slices ---------------------------------------------------------------------------------------------

# hosts as Google's pages give them: v4 and v5p ("Cloud TPU: v4", "v5p", column Hosts), v5e and v6e on GKE ("Plan TPUs")
PUBLISHED = [
    ("v4", "2x2x1", 1),
    ("v4", "4x4x4", 16),
    ("v5p", "2x4x4", 8),
    ("v5p", "8x8x16", 256),
    ("v5p", "16x16x24", 1536),
    ("v5e", "1x1", 1),
    ("v5e", "2x4", 1),
    ("v5e", "16x16", 64),
    ("v6e", "2x2", 1),
    ("v6e", "8x8", 16),
    ("tpu7x", "1x1x1", 1),
    ("tpu7x", "4x4x8", 32),
]


@pytest.mark.parametrize(("kind", "topology", "hosts"), PUBLISHED)
def test_hosts_of_published_slices(kind, topology, hosts):
    assert TPU(kind=kind, topology=topology).hosts == hosts


@pytest.mark.parametrize("kind", GENERATIONS)
def test_hosts_have_all_the_chips(kind):
    for topology, choices in GENERATIONS[kind].topologies.items():
        for chips in choices:
            found = TPU(kind=kind, topology=topology, chips_per_host=chips)
            assert found.hosts * found.chips == math.prod(map(int, topology.split("x")))


# ---- what can't be ------------------------------------------------------------------------------------------

WRONG = [
    (lambda: TPU(kind="v5e", topology="3x3"), "no topology 3x3; it has 1x1, 2x2"),
    (lambda: TPU(kind="v5p", topology="4x4"), "A <= B <= C and at most 6,144"),
    (lambda: TPU(kind="v4", topology="8x4x4"), "no topology 8x4x4"),
    (lambda: TPU(kind="v4", topology="16x16x20"), "at most 4,096"),
    (lambda: TPU(kind="v5e", topology="4x4", chips_per_host=8), "has 4 chips, not 8"),
    (lambda: TPU(kind="v6e", topology="2x4", chips_per_host=2), "has 8 or 4 chips, not 2"),
    (lambda: TPU(kind="v9", topology="2x4"), "must be one of 'v4'"),
    (lambda: GPU(kind="nvidia-h100"), "it has .*nvidia-h100-80gb"),
    (lambda: GPU(kind="nvidia-l4", count=9), "1 to 8 GPUs"),
    (lambda: GPU(kind="nvidia-l4", hosts=0), "at least one host"),
    (lambda: GKE(image="a", results=VOLUME), "needs cpu and memory"),
    (lambda: replace(CPUS, {"memory": "32GB"}), "like 64Gi"),
    (lambda: replace(CPUS, {"results": Bucket(url="s3://a")}), "gs://"),
    (lambda: replace(CPUS, {"priority": "low"}), "name the queue"),
    (lambda: replace(CPUS, {"grace": 0}), "at least 1"),
    (lambda: Bucket(url="lm-results"), "like gs://bucket"),
    (lambda: Volume(name="a", mount="results"), "absolute path"),
    (lambda: SkyPilot(infra="gpc", results=None), "did you mean 'gcp'"),
    (lambda: SkyPilot(infra="gcp/", results=None), "cloud/region"),
    (lambda: SkyPilot(infra="aws", results=None, accelerators="8xH100"), "like H100:8"),
    (lambda: SkyPilot(infra="aws", results=None, memory="64GB"), "8\\+ for at least 8"),
    (lambda: SkyPilot(infra="aws", results=None, hosts=0), "hosts must be"),
    (lambda: SkyPilot(infra="aws", results=None, image="a", packages=("b",)), "no image"),
    (lambda: Work(name="a", manifest=MANIFEST, workers=0), "at least one worker"),
    (lambda: CPUS.render(Work(name="attention_ablation", manifest=MANIFEST)), "try 'attention-ablation'"),
    (lambda: CPUS.render(Work(name="a", manifest=Path("results/a/manifest.jsonl"))), "mounted at /results"),
]


@pytest.mark.parametrize(("make", "says"), WRONG, ids=[says for _, says in WRONG])
def test_values_that_cannot_be_are_errors_that_say_what_can(make, says):
    with pytest.raises(UserError, match=says):
        make()
