"""Using a trained run: continuing a text, evaluating."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from lm.commands.options import RunPath, Shared
from lm.config import ConfigError


@dataclass(frozen=True, kw_only=True)
class Generate(Shared):
    """Continue a prompt with a trained run, or a model of the hub.

    lm generate results/runs/ID "In the beginning" --temperature 0.8 --top-k 40
    """

    run: RunPath
    """The run's folder, one that lm import wrote, or one with config.json and safetensors."""
    prompt: Positional[str]
    """The text to continue."""
    new_tokens: int = 200
    """Tokens to add at most."""
    temperature: float = 0.0
    """0 takes the likeliest token; 1 draws from the model's own distribution."""
    top_k: int | None = None
    """Draw from this many likeliest tokens."""
    top_p: float | None = None
    """Draw from the smallest set of tokens that holds this probability."""
    seed: int = 0
    """Of the draws."""
    stream: bool = False
    """Print the text as it comes."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """The type of the computation; bfloat16 is faster on accelerators."""

    def __call__(self) -> int:
        from lm.commands.models import open_model
        from lm.infer import Greedy, Sample, generate, stream
        from lm.models import Execution, as_decoder

        if self.temperature == 0 and (self.top_k is not None or self.top_p is not None):
            raise ConfigError("--top-k and --top-p need --temperature above 0; with 0 the likeliest token is taken")
        loaded, codec = open_model(self.run)
        model = as_decoder(loaded.spec, "lm generate")
        sampler = Greedy()
        if self.temperature != 0:
            sampler = Sample(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)
        prompt = [codec.bos, *codec.encode(self.prompt).tolist()]
        asked: dict[str, Any] = {
            "prompts": [prompt],
            "new_tokens": self.new_tokens,
            "sampler": sampler,
            "seed": self.seed,
            "stop": codec.eot,
            "execution": Execution(compute=self.compute),
        }
        if self.stream:
            print(self.prompt, end="", flush=True)
            for text in growing(codec.decode, (row[0] for row in stream(model, loaded.params, **asked))):
                print(text, end="", flush=True)
            print()
        else:
            (out,) = generate(model, loaded.params, **asked)
            print(self.prompt + codec.decode(out))
        return 0


@dataclass(frozen=True, kw_only=True)
class Eval(Shared):
    """Evaluate a trained run on all of its held-out text."""

    run: RunPath
    """The run's folder."""
    rows: int | None = None
    """Sequences to use. Default: all."""
    step: int | None = None
    """Use the snapshot of this step (record.snapshots). Default: the newest checkpoint."""

    def __call__(self) -> int:
        from lm.train.load import evaluate_run, load_run

        found = evaluate_run(load_run(self.run, step=self.step), self.rows)
        print(
            f"held-out loss {found['loss']:.4f} nats/token, {found['bits_per_byte']:.4f} bits/byte, "
            f"accuracy {100 * found['accuracy']:.2f}% over {found['evaluated']:,} tokens"
        )
        return 0


@dataclass(frozen=True, kw_only=True)
class Verify(Shared):
    """Do some steps of a run again and compare them with what was written then, to the bit.

    lm verify results/runs/ID --steps 50
    """

    run: RunPath
    """The run's folder."""
    steps: int = 20
    """How many steps to do again, from the oldest checkpoint that has steps after it, or from the start."""
    mesh: str = ""
    """Devices, as they were when the run was done."""

    def __call__(self) -> int:
        keep_to(self.run)
        from lm.sharding import layout
        from lm.train.verify import verify

        verdict = verify(self.run, self.steps, layout(self.mesh))
        print(verdict.text())
        return 0 if verdict.equal else 1


def keep_to(run: str) -> None:
    """Keeps this process to as many cores as the run last had, before JAX starts: on CPU bits may depend on them."""
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError):  # what isn't known changes nothing
        had = json.loads((Path(run) / "provenance.json").read_text())["starts"][-1]["cores"]
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:had])


def growing(decode: Callable[[list[int]], str], tokens: Iterable[int | None]) -> Iterator[str]:
    """The text that each token adds; a character that isn't whole yet waits for its other tokens."""
    made: list[int] = []
    shown = text = ""
    for token in tokens:
        made += [] if token is None else [token]
        text = decode(made)
        if not text.endswith("\ufffd"):
            yield text[len(shown) :]
            shown = text
    yield text[len(shown) :]
