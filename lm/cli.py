"""The command `lm`: which commands there are, and how an error looks."""

from __future__ import annotations

import sys
from typing import Annotated

import tyro
from tyro.conf import subcommand

from lm.commands.board import Board
from lm.commands.emerge import Emerge
from lm.commands.fit import Fit
from lm.commands.hub import Export, Import
from lm.commands.inspect import Config, Cost, Doctor
from lm.commands.plan import Plan
from lm.commands.profile import Profile
from lm.commands.results import Results
from lm.commands.sweep import Sweep
from lm.commands.train import Train
from lm.commands.trained import Eval, Generate, Verify
from lm.errors import UserError

Command = (
    Annotated[Train, subcommand("train")]
    | Annotated[Sweep, subcommand("sweep")]
    | Annotated[Plan, subcommand("plan")]
    | Annotated[Results, subcommand("results")]
    | Annotated[Fit, subcommand("fit")]
    | Annotated[Emerge, subcommand("emerge")]
    | Annotated[Board, subcommand("board")]
    | Annotated[Generate, subcommand("generate")]
    | Annotated[Eval, subcommand("eval")]
    | Annotated[Verify, subcommand("verify")]
    | Annotated[Import, subcommand("import")]
    | Annotated[Export, subcommand("export")]
    | Annotated[Profile, subcommand("profile")]
    | Annotated[Config, subcommand("config")]
    | Annotated[Cost, subcommand("cost")]
    | Annotated[Doctor, subcommand("doctor")]
)


def main(arguments: list[str] | None = None) -> None:
    """Parses, runs, and turns an error a user can act on into one line and its exit code."""
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

    from lm import launch

    launch.prepare_jax()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("lm").setLevel(logging.INFO)
    try:
        code = command()
    except KeyboardInterrupt:
        code = 130
        print("lm: interrupted", file=sys.stderr)
    except (UserError, OSError) as error:
        if command.debug:
            raise
        print(f"lm: {' '.join(str(error).split())}", file=sys.stderr)
        code = error.exit_code if isinstance(error, UserError) else 1
    sys.exit(code)
