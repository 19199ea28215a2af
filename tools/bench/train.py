"""Training speed: `lm` against PyTorch and against plain JAX, with equal weights and equal batches.

python tools/bench/train.py [--json FILE] [--rounds 9] [--cases L4-d128 ...] [--quick]

Every contestant is a process of its own with two cores and the same allocator settings; one step is forward,
backward, clipping to norm 1 and AdamW in float32. Ratios above 1 mean that `lm` is faster.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import numpy as np

from lm import launch

RATE, DECAY, B1, B2 = 3e-4, 0.1, 0.9, 0.95


@dataclass(frozen=True)
class Case:
    """A model and a batch. kv_heads None: the GPT; else a Llama-style block (RMSNorm, SwiGLU, RoPE, GQA)."""

    layers: int
    width: int
    length: int
    batch: int
    vocab: int
    heads: int
    steps: int  # of one chunk
    kv_heads: int | None = None

    def run(self, kernels: str) -> Any:
        """The run that `lm` would train."""
        from lm.data import Data
        from lm.models import Decoder, Execution
        from lm.nn import MLP, Block, LayerNorm, Learned, RMSNorm, gqa, mha, swiglu
        from lm.train import AdamW, Run, Training
        from lm.train.schedules import Constant

        if self.kv_heads is None:
            mixer = mha(self.heads, position=None, bias=True, output_bias=True)
            block = Block(mixer=mixer, ff=MLP(hidden=4 * self.width, bias=True), norm=LayerNorm())
            rest: dict[str, Any] = {"position": Learned(length=self.length), "norm": LayerNorm()}
        else:
            block = Block(mixer=gqa(self.heads, self.kv_heads), ff=swiglu(self.hidden), norm=RMSNorm())
            rest = {"norm": RMSNorm(), "tied": False}
        return Run(
            model=Decoder(vocab=self.vocab, width=self.width, layers=self.layers, block=block, **rest),
            data=Data(length=self.length, batch=self.batch),
            train=Training(
                steps=1000,
                optimizer=AdamW(learning_rate=RATE, weight_decay=DECAY, b1=B1, b2=B2),
                schedule=Constant(warmup=0),
                execution=Execution(kernels=kernels),  # type: ignore[arg-type]
            ),
        )

    @property
    def hidden(self) -> int:
        return 8 * math.ceil(self.width / 3)

    def tokens(self) -> np.ndarray:
        """[batch, length + 1]: inputs and, one later, targets."""
        return np.random.default_rng(0).integers(0, self.vocab, (self.batch, self.length + 1))


CASES = {
    "GPT L4 d128 T256 B12 V256": Case(4, 128, 256, 12, 256, heads=4, steps=11),
    "GPT L6 d384 T256 B4 V256": Case(6, 384, 256, 4, 256, heads=6, steps=4),
    "GPT L4 d256 T256 B8 V4096": Case(4, 256, 256, 8, 4096, heads=4, steps=6),
    "GPT L2 d64 T64 B8 V256": Case(2, 64, 64, 8, 256, heads=2, steps=128),
    "Llama L4 d256 T256 B8 V256": Case(4, 256, 256, 8, 256, heads=8, kv_heads=2, steps=5),
}
QUICK = {
    "GPT, tiny": Case(1, 32, 16, 2, 64, heads=2, steps=16),
    "Llama, tiny": Case(1, 32, 16, 2, 64, heads=4, kv_heads=2, steps=16),
}


# ---- contestants: each ends in `serve` -------------------------------------------------------------------------


def prepared(case: Case, kernels: str) -> tuple[Any, dict[str, np.ndarray], Any]:
    """`lm`'s program for the case, a batch for it, and the numbers of its training."""
    launch.prepare_jax()
    from lm.config import lift
    from lm.sharding import layout
    from lm.train.step import program

    run = case.run(kernels)
    shape, values = lift(run.train)
    tokens, ones = case.tokens().astype(np.int32), np.ones((case.batch, case.length), np.int32)
    batch = {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "segments": ones}
    batch |= {"positions": ones * np.arange(case.length, dtype=np.int32), "weights": ones.astype(np.float32)}
    return program(run.model, shape, layout()), batch, values


def lm_contestant(case: Case, kernels: str, weights: Path) -> None:
    """Trains with `lm`'s compiled step; the first to come writes the initial weights for the others."""
    compiled, batch, values = prepared(case, kernels)
    import jax

    state = compiled.init(0)
    if not weights.exists():
        np.save(weights, jax.device_get(state.params), allow_pickle=True)  # type: ignore[arg-type]
    together = case.run(kernels).steps_at_once
    state, metrics = compiled.advance(state, [batch], values, together)
    loss = float(np.ravel(metrics["loss"])[0])

    def train(steps: int) -> None:
        nonlocal state
        while steps:
            now = min(steps, together)
            state, metrics = compiled.advance(state, [batch] * now, values, together)
            steps -= now
        jax.block_until_ready(metrics)

    harness.serve(lambda: train(case.steps), {"loss": loss}, warm=lambda: train(1))


def torch_contestant(case: Case, weights: Path) -> None:
    """Trains the same model with PyTorch: torch.compile, fused AdamW."""
    import torch
    import torch_models

    torch.manual_seed(0)
    model = torch_models.build(case, np.load(weights, allow_pickle=True).item())
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(B1, B2), eps=1e-8, fused=True)
    compiled = torch.compile(model)
    tokens = torch.from_numpy(case.tokens())
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = compiled(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    loss = step().item()

    def train(steps: int) -> None:
        for _ in range(steps):
            last = step()
        last.item()

    harness.serve(lambda: train(case.steps), {"loss": loss}, warm=lambda: train(1))


CONTESTANTS = ("lm", "plain JAX", "PyTorch")


def contest(name: str, rounds: int, contestants: tuple[str, ...]) -> dict[str, Any]:
    """Chunks of each contestant. Raises SystemExit if their first losses differ: they'd be other models."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "weights.npy")
        command = [sys.executable, __file__, "--weights", str(weights), "--case", name, "--contestant"]
        running = {who: harness.Contestant([*command, who]) for who in contestants}
        losses = {who: one.facts["loss"] for who, one in running.items()}
        if max(losses.values()) - min(losses.values()) > 1e-4:
            raise SystemExit(f"first losses differ by more than 1e-4: {losses}")
        chunks = harness.take_turns(running, rounds)
        for one in running.values():
            one.close()
    return {"losses": losses, "chunks": {who: [vars(c) for c in found] for who, found in chunks.items()}}


def rows_of(name: str, case: Case, found: dict[str, Any]) -> list[dict[str, Any]]:
    chunks = {who: [harness.Chunk(**c) for c in of] for who, of in found["chunks"].items()}
    rows = []
    for who, of in chunks.items():
        wall = harness.spread([1000 * c.wall / case.steps for c in of])
        cpu = harness.spread([1000 * c.cpu / case.steps for c in of])
        tokens = case.batch * case.length * 1000 / wall.median
        row = {"model": name, "": who, "ms a step": f"{wall:.1f}", "CPU ms": f"{cpu:.1f}", "tokens/s": f"{tokens:,.0f}"}
        row["MB"] = f"{max(c.memory for c in of) / 1e6:.0f}"
        row["lm is faster by"] = "" if who == "lm" else f"{harness.ratio(chunks['lm'], of):.2f}"
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cases", nargs="+", default=[""], help="parts of the names of the cases to run")
    parser.add_argument("--contestants", nargs="+", default=CONTESTANTS, choices=CONTESTANTS)
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="tiny models and few rounds: to see that it works")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant is not None:
        case = (CASES | QUICK)[options.case]
        if options.contestant == "PyTorch":
            return torch_contestant(case, options.weights)
        return lm_contestant(case, "auto" if options.contestant == "lm" else "plain", options.weights)
    rows, numbers = [], {}
    for name, case in (QUICK if options.quick else CASES).items():
        if any(part in name for part in options.cases):
            numbers[name] = contest(name, 2 if options.quick else options.rounds, tuple(options.contestants))
            rows += rows_of(name, case, numbers[name])
    harness.write(options.json, rows, numbers)


if __name__ == "__main__":
    main()
