"""The command `lm`. Each command is a dataclass whose fields are its options; what it does is in `lm.commands`.

Nothing heavy is imported to show help: a command imports what it needs when it runs.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg, subcommand

from lm.errors import UserError

File = Annotated[Positional[str], arg(metavar="FILE")]
Overrides = Annotated[Positional[tuple[str, ...]], arg(metavar="PATH=VALUE")]
RunPath = Annotated[Positional[str], arg(metavar="RUN")]


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Options of every command."""

    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True, kw_only=True)
class OnMachine(Shared):
    """Options of commands that train."""

    mesh: str = ""
    """Devices to use, e.g. data=8 or fsdp=4,tensor=2. Empty: one device. Not part of what a run is."""
    rules: str | None = None
    """How parameters are split: ddp, fsdp or fsdp_tp. Default: by the mesh."""
    log: tuple[str, ...] = ()
    """Where metrics go besides the run's own rows: tensorboard, wandb."""
    quiet: bool = False
    """No progress bar."""


@dataclass(frozen=True, kw_only=True)
class OfExperiment(Shared):
    """Options of commands on an experiment file."""

    file: File
    """A Python file that defines `experiment`."""
    overrides: Overrides = ()
    """Changes of the experiment, e.g. seeds=8 base.train.steps=2000 base.model.block.mixer.kv_heads=2."""
    preset: str | None = None
    """One of the file's `presets`, e.g. smoke."""
    results: str = "results"
    """The folder that runs and reports are kept in."""


@dataclass(frozen=True, kw_only=True)
class Train(OfExperiment, OnMachine):
    """Train the base run of an experiment file, or continue it.

    lm train experiments/attention_ablation.py train.steps=100 model.block.mixer.kv_heads=2
    """

    out: str | None = None
    """The run's folder. Default: RESULTS/runs/ID, where ID is the hash of the run's config and data."""


@dataclass(frozen=True, kw_only=True)
class Plan(OfExperiment):
    """Show every run of the experiment with its size and cost; nothing is trained."""


@dataclass(frozen=True, kw_only=True)
class RunSweep(OfExperiment, OnMachine):
    """Do the runs that aren't done yet, then write the report.

    lm sweep run experiments/attention_ablation.py --preset smoke
    """


@dataclass(frozen=True, kw_only=True)
class Status(OfExperiment):
    """Show what is done, failed and still to do."""


@dataclass(frozen=True, kw_only=True)
class Report(OfExperiment):
    """Write the report of the runs that are done: HTML, PNG and CSV."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Experiments of many runs: plan, run, status, report."""

    action: Annotated[
        Annotated[Plan, subcommand("plan")]
        | Annotated[RunSweep, subcommand("run")]
        | Annotated[Status, subcommand("status")]
        | Annotated[Report, subcommand("report")],
        arg(name=""),
    ]


@dataclass(frozen=True, kw_only=True)
class Generate(Shared):
    """Continue a prompt with a trained run.

    lm generate results/runs/ID "In the beginning" --temperature 0.8 --top-k 40
    """

    run: RunPath
    """The run's folder."""
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


@dataclass(frozen=True, kw_only=True)
class Eval(Shared):
    """Evaluate a trained run on all of its held-out text."""

    run: RunPath
    """The run's folder."""
    rows: int | None = None
    """Sequences to use. Default: all."""


@dataclass(frozen=True, kw_only=True)
class Config(OfExperiment):
    """Print an experiment, or a run's folder, as JSON with every default filled in; or compare two."""

    diff: str | None = None
    """Another file or folder: print only what differs, as path: this -> that."""


@dataclass(frozen=True, kw_only=True)
class Cost(OfExperiment):
    """Parameters, FLOPs and memory of every arm of an experiment, before anything runs."""


@dataclass(frozen=True, kw_only=True)
class Doctor(Shared):
    """Say what this machine has and what is wrong with it."""


Command = (
    Annotated[Train, subcommand("train")]
    | Annotated[Sweep, subcommand("sweep")]
    | Annotated[Generate, subcommand("generate")]
    | Annotated[Eval, subcommand("eval")]
    | Annotated[Config, subcommand("config")]
    | Annotated[Cost, subcommand("cost")]
    | Annotated[Doctor, subcommand("doctor")]
)


def main(arguments: list[str] | None = None) -> None:
    """Parses, runs, and turns an error a user can act on into one line and exit code 1."""
    command = tyro.cli(
        Command,  # type: ignore[arg-type]
        prog="lm",
        description="Fair experiments on language models: train, sweep, compare, generate.",
        args=arguments,
        config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    if isinstance(command, Sweep):
        command = command.action
    import logging

    from lm import commands, launch

    launch.prepare_jax()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("lm").setLevel(logging.INFO)
    try:
        code = commands.run(command)
    except KeyboardInterrupt:
        code = 130
        print("lm: interrupted", file=sys.stderr)
    except (UserError, OSError) as error:
        if command.debug:
            raise
        print(f"lm: {' '.join(str(error).split())}", file=sys.stderr)
        code = 1
    sys.exit(code)
