"""Decoding speed: whole generation against transformers, and shared against own keys and values over the context.

python tools/bench/decode.py [--json FILE] [--rounds 7] [--cases Llama context ...] [--quick]

Generation: prompts of 64 tokens, 128 new ones, greedy, float32, the time of the whole call of `lm.infer.generate` and
of transformers' `generate` with the same weights; the tokens must be equal. Context: the arms of
`experiments/attention_ablation.py`, as matched there, and MHA with a window, each adding tokens to a cache that holds
the context. "plain" is the definition of every layer: one cache, carried through the loop. Every contestant is a
process of its own with the same allocator settings.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import harness
import numpy as np

ABLATION = Path(__file__).parents[2] / "experiments" / "attention_ablation.py"
WINDOW = 256


@dataclass(frozen=True)
class Generation:
    """A Llama and what it is to continue."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    batch: int
    prompt: int = 64
    new: int = 128
    vocab: int = 256
    contestants: tuple[str, ...] = ("lm", "plain", "transformers")

    @property
    def hidden(self) -> int:
        return 8 * -(-self.width // 3)

    @property
    def length(self) -> int:
        return self.prompt + self.new

    @property
    def tokens(self) -> int:
        """New tokens of a chunk."""
        return self.batch * self.new

    def model(self) -> Any:
        from lm.models import Decoder
        from lm.nn import Block, RMSNorm, gqa, swiglu

        block = Block(mixer=gqa(self.heads, self.kv_heads), ff=swiglu(self.hidden), norm=RMSNorm())
        return Decoder(vocab=self.vocab, width=self.width, layers=self.layers, block=block, tied=False)

    def prompts(self) -> np.ndarray:
        return np.random.default_rng(0).integers(0, self.vocab, (self.batch, self.prompt))


@dataclass(frozen=True)
class Context:
    """Rows that each add tokens to a cache of `context` tokens; a chunk is `calls` calls."""

    context: int
    batch: int = 4
    calls: int = 1
    contestants: tuple[str, ...] = ("MHA", "GQA-4", "GQA-2", "MQA", "window", "plain MHA", "plain MQA")

    @property
    def tokens(self) -> int:
        from lm.infer.speed import TOKENS

        return self.batch * TOKENS * self.calls

    def model(self, arm: str) -> Any:
        """The arm as the ablation matches it. The window is of MHA."""
        from lm.config import replace
        from lm.sweep import file

        arms = file.load(str(ABLATION)).experiment.arms_resolved()
        model = arms["MHA" if arm == "window" else arm][0].model
        return replace(model, {"block.mixer.mask.window": WINDOW}) if arm == "window" else model


Case = Generation | Context
CASES: dict[str, Case] = {
    "Llama MHA, batch 1": Generation(4, 256, 8, 8, batch=1),
    "Llama MHA, batch 16": Generation(4, 256, 8, 8, batch=16),
    "Llama GQA-2, batch 1": Generation(4, 256, 8, 2, batch=1),
    "Llama GQA-2, batch 16": Generation(4, 256, 8, 2, batch=16),
    "context 128": Context(128, calls=4),
    "context 512": Context(512, calls=4),
    "context 2048": Context(2048),
    "context 8192": Context(8192),
}
QUICK: dict[str, Case] = {
    "Llama GQA-2, batch 2": Generation(2, 64, 4, 2, batch=2, prompt=8, new=16),
    "context 128": Context(128, batch=1, contestants=("MHA", "MQA", "plain MQA")),
}


# ---- contestants: each ends in `serve` -------------------------------------------------------------------------


def lm_generation(case: Generation, kernels: str, weights: Path) -> None:
    """`lm.infer.generate`; the first to come writes the weights for the others."""
    from lm.launch import prepare_jax

    prepare_jax()
    import jax
    from flax import nnx

    from lm.infer import generate
    from lm.models import Execution
    from lm.nn import param

    model = case.model()
    if not weights.exists():
        drawn = jax.jit(lambda key: param.split(model.build(rngs=nnx.Rngs(params=key)))[1])(jax.random.key(0))
        np.save(weights, jax.device_get(drawn), allow_pickle=True)  # type: ignore[arg-type]
    params = jax.device_put(np.load(weights, allow_pickle=True).item())
    prompts, execution = case.prompts().tolist(), Execution(kernels=kernels)  # type: ignore[arg-type]

    def chunk() -> list[list[int]]:
        return generate(model, params, prompts, case.new, execution=execution)

    harness.serve(chunk, {"made": chunk()})


def transformers_generation(case: Generation, weights: Path) -> None:
    """transformers' `generate` with its fused attention and its default cache."""
    import torch
    import torch_models

    llama: Any = torch_models.build(case, np.load(weights, allow_pickle=True).item())
    model = llama.model.eval()
    tokens = torch.from_numpy(case.prompts())
    fixed = {"max_new_tokens": case.new, "min_new_tokens": case.new, "do_sample": False, "use_cache": True}

    def chunk() -> list[list[int]]:
        with torch.inference_mode():
            ones = torch.ones_like(tokens)
            made = model.generate(tokens, attention_mask=ones, eos_token_id=None, pad_token_id=0, **fixed)
        return made[:, case.prompt :].tolist()

    harness.serve(chunk, {"made": chunk()})


def context_contestant(case: Context, arm: str) -> None:
    from lm.launch import prepare_jax

    prepare_jax()
    from lm.infer.speed import decoding
    from lm.models import Execution

    kernels = "plain" if arm.startswith("plain ") else "auto"
    decode = decoding(case.model(arm.removeprefix("plain ")), case.context, case.batch, Execution(kernels=kernels))

    def chunk() -> None:
        for _ in range(case.calls):
            decode()

    harness.serve(chunk, {})


def contestant(case: Case, name: str, weights: Path) -> None:
    if isinstance(case, Context):
        context_contestant(case, name)
    elif name == "transformers":
        transformers_generation(case, weights)
    else:
        lm_generation(case, "plain" if name == "plain" else "auto", weights)


def contest(name: str, case: Case, rounds: int, quick: bool) -> dict[str, Any]:
    """Chunks of each contestant. Raises SystemExit where their tokens differ."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--weights", str(Path(folder, "weights.npy")), "--cases", name]
        command += ["--quick"] if quick else []
        present = [who for who in case.contestants if who != "transformers" or find_spec("transformers")]
        running = {who: harness.Contestant([*command, "--contestant", who]) for who in present}
        made = [one.facts.get("made") for one in running.values()]
        if any(tokens != made[0] for tokens in made):
            raise SystemExit(f"{name}: the contestants' greedy tokens differ")
        chunks = harness.take_turns(running, rounds)
        for one in running.values():
            one.close()
    return {"case": dataclasses.asdict(case), "chunks": {n: [vars(c) for c in found] for n, found in chunks.items()}}


def rows_of(name: str, case: Case, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a contestant, compared with the last of them (transformers), or over the context with MHA."""
    chunks = {who: [harness.Chunk(**c) for c in of] for who, of in found["chunks"].items()}
    against = "MHA" if isinstance(case, Context) else list(chunks)[-1]
    rows = []
    for who, of in chunks.items():
        step = harness.spread([1e3 * c.wall * case.batch / case.tokens for c in of])
        cpu = harness.spread([1e3 * c.cpu * case.batch / case.tokens for c in of])
        row = {"case": name, "": who, "ms a token": f"{step:.2f}", "CPU ms": f"{cpu:.2f}"}
        row["tokens/s"] = f"{1e3 * case.batch / step.median:,.0f}"
        row["MB"] = f"{max(c.memory for c in of) / 1e6:.0f}"
        row["times as fast as"] = "" if who == against else f"{against}: {harness.ratio(of, chunks[against]):.2f}"
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cases", nargs="+", default=[""], help="parts of the names of the cases to run")
    parser.add_argument("--quick", action="store_true", help="tiny cases, to see that everything works")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    cases = QUICK if options.quick else CASES
    if options.contestant is not None:
        return contestant(cases[options.cases[0]], options.contestant, options.weights)
    rows, numbers = [], {}
    for name, case in cases.items():
        if any(part in name for part in options.cases):
            numbers[name] = contest(name, case, 2 if options.quick else options.rounds, options.quick)
            rows += rows_of(name, case, numbers[name])
    harness.write(options.json, rows, numbers)


if __name__ == "__main__":
    main()
