"""Tables as a sweep writes them, with known effects: arm k is worse than the first by `steps[k]` nats."""

import numpy as np
import pandas as pd


def runs_table(arms, seeds=4, failed=(), kv=None):
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.015, seeds)
    rows = []
    for i, (arm, effect) in enumerate(arms.items()):
        for seed in range(seeds):
            bad = arm in failed or (arm, seed) in failed
            loss = np.nan if bad else 1.742 + effect + shared[seed] + rng.normal(0, 0.004)
            rows.append(
                {
                    "id": f"{i:02x}{seed:02x}c0ffee12", "arm": arm, "seed": seed, "status": "failed" if bad else "done",
                    "params": 1_204_224 + 1024 * i, "non_embedding": 1_171_456, "flops_per_token": 7.4e6 + 1e4 * i,
                    "kv_bytes_per_token": 8192 // 2**i if kv is None else kv[i], "tokens": 4_096_000,
                    "heldout_loss": loss, "heldout_bpb": loss / np.log(2), "seconds": 212.0 + i,
                    "tokens_per_second": 19300.0 + 500 * i + rng.normal(0, 200),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def curves_table(runs):
    rng = np.random.default_rng(1)
    train = np.unique(np.geomspace(1, 1000, 120).astype(int))
    heldout = np.unique(np.geomspace(10, 1000, 12).astype(int))
    rows = []
    for run in runs.to_dict("records"):
        final = run["heldout_loss"] if run["status"] == "done" else 1.8
        last = 1000 if run["status"] == "done" else 200
        for split, steps, noise in (("train", train, 0.05), ("heldout", heldout, 0.002)):
            for step in steps[steps <= last]:
                loss = final + 3.8 * ((1 + step / 8) ** -0.6 - (1 + 1000 / 8) ** -0.6) + rng.normal(0, noise)
                rows.append(
                    {
                        "arm": run["arm"], "seed": run["seed"], "step": step, "tokens": step * 4096, "split": split,
                        "flops": step * 4096 * 7.4e6, "loss": loss, "bits_per_byte": loss / np.log(2),
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def decode_table(arms, contexts=(256, 512, 1024, 2048, 4096, 8192), batches=(1, 16)):
    rows = []
    for i, arm in enumerate(arms):
        for batch in batches:
            for context in contexts:
                speed = 900 * batch**0.7 / (1 + context / (1500 * 2**i))
                rows.append(
                    {
                        "arm": arm,
                        "context": context,
                        "batch": batch,
                        "tokens_per_second": speed,
                        "low": speed * 0.94,
                        "high": speed * 1.03,
                        "device": "a CPU",
                    }
                )
    return pd.DataFrame(rows)


ATTENTION = {"MHA": 0.0, "GQA-4": 0.001, "GQA-2": 0.009, "MQA": 0.021}
