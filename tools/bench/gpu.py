"""What an accelerator does: training, decoding, and many runs side by side. One command, a few minutes.

PYTHONPATH=. python tools/bench/gpu.py [--json FILE] [--only train decode seeds] [--quick]

Needs jax, flax, optax, orbax-checkpoint and numpy, nothing else. MFU is model FLOPs (the exact cost model: causal
pairs only, head included, recomputation not) over the published bf16 peak of the device. `--quick` uses tiny models
and runs anywhere.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import harness
import numpy as np

REPEATS = 5


@dataclass(frozen=True)
class Dense:
    """A GPT-2-shaped model and the largest batch to try; half of it, and so on, where that doesn't fit."""

    width: int
    layers: int
    heads: int
    length: int
    batch: int
    remat: str = "none"
    vocab: int = 50304  # GPT-2's, padded to a multiple of 128
    compute: str = "bfloat16"

    def run(self, batch: int) -> Any:
        from lm.data import Data
        from lm.models import Execution
        from lm.models.presets import gpt2_style
        from lm.train import AdamW, Run, Training

        return Run(
            model=gpt2_style(self.width, self.layers, heads=self.heads, vocab=self.vocab, length=self.length),
            data=Data(length=self.length, batch=batch),
            train=Training(
                steps=10_000,
                optimizer=AdamW(learning_rate=3e-4),
                execution=Execution(compute=self.compute, remat=self.remat),  # type: ignore[arg-type]
            ),
        )


DENSE = {
    "124M": Dense(768, 12, 12, length=1024, batch=64),
    "350M": Dense(1024, 24, 16, length=1024, batch=32),
    "1.3B": Dense(2048, 24, 16, length=1024, batch=32, remat="dots"),
}
CONTEXTS, ROWS = (1024, 8192, 32768), 8
SEEDS = 8


def tokens(run: Any) -> dict[str, np.ndarray]:
    """A batch of random tokens, a document a row."""
    shape = (run.data.batch, run.data.length)
    drawn = np.random.default_rng(0).integers(0, run.model.vocab, (shape[0], shape[1] + 1)).astype(np.int32)
    ones = np.ones(shape, np.int32)
    positions = ones * np.arange(shape[1], dtype=np.int32)
    batch = {"tokens": drawn[:, :-1], "targets": drawn[:, 1:], "positions": positions, "segments": ones}
    return {**batch, "weights": ones.astype(np.float32)}


def seconds(work: Callable[[], Any], least: float) -> list[float]:
    """Seconds of one call of `work`, `REPEATS` times, each over as many calls as take `least` seconds."""
    import jax

    jax.block_until_ready(work())  # compiles
    began = time.perf_counter()
    jax.block_until_ready(work())
    calls = max(1, round(least / (time.perf_counter() - began)))
    found = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(calls):
            last = work()
        jax.block_until_ready(last)
        found.append((time.perf_counter() - began) / calls)
    return found


def peak_bytes() -> str:
    """The most memory that JAX has had on the device, where it says so."""
    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    return f"{stats['peak_bytes_in_use'] / 1e9:.1f}" if "peak_bytes_in_use" in stats else ""


# ---- training ------------------------------------------------------------------------------------------------


def steps_of(run: Any) -> Callable[[], Any]:
    """Does one step a call."""
    from lm.config import lift
    from lm.sharding import layout
    from lm.train.step import program

    shape, values = lift(run.train)
    compiled = program(run.model, shape, layout())
    state, batch = compiled.init(0), compiled.layout.put(tokens(run))

    def step() -> Any:
        nonlocal state
        state, metrics = compiled.step(state, batch, values)
        return metrics

    return step


def train_rows(models: dict[str, Dense], least: float) -> Iterator[dict[str, Any]]:
    """Training tokens a second of each model, at the largest batch that fits."""
    import jax

    from lm.train.peak import peak_flops

    for name, dense in models.items():
        batch, note = dense.batch, ""
        while batch:
            run = dense.run(batch)
            try:
                rates = harness.spread([batch * dense.length / s for s in seconds(steps_of(run), least)])
                break
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                note += f"{batch} rows: out of memory; "
                batch //= 2
        else:
            yield {"model": name, "batch": "", "tokens/s": "", "MFU": "", "peak GB": "", "note": note}
            continue
        mfu = rates.median * run.flops / run.tokens / peak_flops()[0]
        yield {
            "model": f"{name}: {run.model.cost(dense.length).params / 1e6:,.0f}M, {dense.compute}, remat {dense.remat}",
            "batch": f"{batch} x {dense.length}",
            "tokens/s": f"{rates:,.0f}",
            "MFU": f"{mfu:.1%}",
            "peak GB": peak_bytes(),
            "note": note,
        }


# ---- decoding ------------------------------------------------------------------------------------------------


def decode_rows(dense: Dense, contexts: tuple[int, ...], rows: int) -> Iterator[dict[str, Any]]:
    """Tokens a second of MHA, GQA and MQA models after contexts of these lengths."""
    from lm.infer.speed import decode_speed
    from lm.models import Decoder, Execution
    from lm.nn import Block, gqa, mha, mqa, swiglu

    execution = Execution(compute=dense.compute)  # type: ignore[arg-type]
    mixers = {"MHA": mha(dense.heads), "GQA": gqa(dense.heads, dense.heads // 4), "MQA": mqa(dense.heads)}
    for context in contexts:
        row = {"context": f"{context:,}", "rows": rows}
        for name, mixer in mixers.items():
            block = Block(mixer=mixer, ff=swiglu(8 * dense.width // 3))
            model = Decoder(vocab=dense.vocab, width=dense.width, layers=dense.layers, block=block)
            try:
                found = decode_speed(model, context, rows, execution=execution)
                row[name] = "{tokens_per_second:,.0f} [{low:,.0f}, {high:,.0f}]".format(**found)
            except Exception as error:  # out of memory, mostly: the rest is still worth measuring
                row[name] = str(error).splitlines()[0][:60]
        yield row


# ---- many runs side by side ------------------------------------------------------------------------------------


def seeds_rows(dense: Dense, least: float) -> Iterator[dict[str, Any]]:
    """A step of one run against a step of several seeds as one program with a leading axis of runs."""
    import jax

    from lm.config import lift
    from lm.sharding import layout
    from lm.train.step import program

    run = dense.run(dense.batch)
    shape, values = lift(run.train)
    compiled = program(run.model, shape, layout())
    batch = compiled.layout.put(tokens(run))
    one_step: Any = compiled.step
    begin: Any = compiled.init
    together = jax.jit(jax.vmap(one_step.__wrapped__, in_axes=(0, None, None)), donate_argnums=0)
    times = {}
    for name, count, step in (("one run", 1, compiled.step), (f"{SEEDS} seeds", SEEDS, together)):
        state = compiled.init(0) if count == 1 else jax.vmap(begin.__wrapped__)(jax.numpy.arange(count))

        def work(step: Any = step) -> Any:
            nonlocal state
            state, metrics = step(state, batch, values)
            return metrics

        times[name] = seconds(work, least)
        rates = harness.spread([count * dense.batch * dense.length / s for s in times[name]])
        cost = harness.spread(times[name]).median / harness.spread(times["one run"]).median
        ms = harness.spread([1000 * s for s in times[name]])
        row = {"": name, "ms a step": f"{ms:.2f}", "tokens/s of all": f"{rates:,.0f}"}
        yield {**row, "of one run's time": f"{cost:.2f}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    parser.add_argument("--only", nargs="+", default=("train", "decode", "seeds"), choices=("train", "decode", "seeds"))
    parser.add_argument("--quick", action="store_true", help="tiny models: to see that it works")
    options = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")
    import jax

    device = jax.devices()[0]
    print(f"{device.device_kind}, {device.platform}, jax {jax.__version__}", flush=True)
    tiny = Dense(32, 2, 4, length=32, batch=2, vocab=128, compute="bfloat16" if device.platform == "gpu" else "float32")
    small = Dense(128, 4, 4, length=256, batch=8, vocab=256)
    least = 0.01 if options.quick else 1.0
    sections: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "train": lambda: train_rows({"tiny": tiny} if options.quick else DENSE, least),
        "decode": lambda: decode_rows(tiny, (64,), 2) if options.quick else decode_rows(DENSE["350M"], CONTEXTS, ROWS),
        "seeds": lambda: seeds_rows(tiny if options.quick else small, least),
    }
    found = {}
    for name in options.only:
        found[name] = list(sections[name]())
        print(f"\n{name}\n{harness.table(found[name])}", flush=True)
    if options.json:
        harness.save(options.json, {"device": device.device_kind, **found})


if __name__ == "__main__":
    main()
