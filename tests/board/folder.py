"""Small results folders, made of the files that training leaves behind."""

import json
import math
import os

from lm.train.lock import NAME

NASTY = """<img src=x onerror="alert(1)">'&{{7*7}}"""


def experiment(root, name, arms, seeds=2, steps=200, states=None, points=None):
    """Writes an experiment's manifest and its runs. states: {(arm, seed): state}, "done" where none is given."""
    lines = []
    for seed in range(seeds):
        for k, arm in enumerate(arms):
            state = (states or {}).get((arm, seed), "done")
            point = (points or {}).get(arm, {"model.block.mixer.kv_heads": 2**k})
            entry = {
                "id": f"{name}-{k}-{seed}", "group": "g", "arm": arm, "seed": seed, "status": "new", "point": point,
                "params": 800_000 + k, "non_embedding": 790_000, "flops_per_token": 1.9e6, "kv_bytes_per_token": 2048.0,
                "tokens": steps * 2048, "flops": steps * 2048 * 5.7e6,
            }  # fmt: skip
            lines.append(json.dumps(entry))
            if state != "new":
                run(root / "runs" / entry["id"], entry, state, steps, offset=0.1 * k + 0.02 * seed)
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return root / name


def run(folder, entry, state, steps, offset):
    folder.mkdir(parents=True)
    done = {"done": steps, "running": steps // 2, "interrupted": steps // 3, "failed": steps // 4}[state]
    (folder / "config.json").write_text(json.dumps(config(entry, steps)))
    start = {
        "time": "2026-01-02T03:04:05Z", "command": ["lm", "sweep", "run", "experiments/x.py"], "python": "3.11.7",
        "packages": {"lm": "0.1.0", "jax": "0.10.2"}, "devices": {"cpu": 1}, "backend": "cpu", "processes": 1,
        "git": {"commit": "45079393e38db804fe2931b31c91901f0f501ca5", "dirty": True, "patch": "+<b>new</b> line"},
    }  # fmt: skip
    (folder / "provenance.json").write_text(json.dumps({"data": "fb80e4a055ec6c44", "starts": [start]}))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(done, offset)))
    if state == "done":
        loss = rows(done, offset)[-1]["loss"]
        numbers = {"heldout_loss": loss, "heldout_bpb": loss / math.log(2), "heldout_accuracy": 0.5}
        costs = {"tokens": entry["tokens"], "flops": entry["flops"], "tokens_per_second": 1e4, "seconds": steps / 5}
        (folder / "result.json").write_text(json.dumps(numbers | costs))
    if state == "failed":
        (folder / "failure.json").write_text(json.dumps({"error": f"loss is nan at step {done} <i>(batch)</i>"}))
        (folder / "traceback.txt").write_text("Traceback: <script>alert(2)</script>")
    if state == "running":
        (folder / NAME).write_text("{}")


def rows(steps, offset):
    found = []
    for step in range(1, steps + 1):
        loss = 1.5 + offset + 4.5 * step**-0.5
        wave = 0.05 * math.sin(step * 12.9898 + offset * 78.233)
        common = {"step": step, "tokens": 2048 * step}
        if step == 1 or step % 5 == 0:
            speed = {"seconds": 1.0, "tokens_per_second": 1e4, "mfu": 0.3}
            found.append({**common, "split": "train", "loss": loss + wave, "bits_per_byte": loss, **speed})
        if step & (step - 1) == 0 or step == steps:
            found.append({**common, "split": "heldout", "loss": loss + 0.02, "bits_per_byte": loss, "accuracy": 0.5})
    return found


def config(entry, steps):
    heads = entry["point"].get("model.block.mixer.kv_heads", 8)
    mixer = {"type": "Attention", "heads": 8, "kv_heads": heads, "position": {"type": "RoPE", "base": 10000.0}}
    model = {"type": "Decoder", "vocab": 256, "block": {"type": "Block", "mixer": mixer}}
    return {"type": "Run", "model": model, "train": {"type": "Training", "steps": steps}, "seed": entry["seed"]}


def work_on(folder):
    """Holds a run's lock as a process that trains it does; the descriptor, to be closed at the end."""
    import fcntl

    descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor
