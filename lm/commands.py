"""What each command of `lm` does: a thin layer over the rooms of the house."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm import cli
from lm.config import ConfigError, diff, dumps, override

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lm.sharding import Layout
    from lm.sweep.file import ExperimentFile
    from lm.sweep.manifest import Entry
    from lm.train.loop import Machine


@functools.singledispatch
def run(command: Any) -> int:
    """Does a command; the exit code."""
    raise TypeError(command)


def machine(command: cli.OnMachine) -> Machine:
    from lm.sharding import layout
    from lm.train.loop import Machine

    return Machine(layout=layout(command.mesh, command.rules), log=command.log, quiet=command.quiet)


def experiment(command: cli.OfExperiment) -> tuple[ExperimentFile, tuple[Entry, ...], Path]:
    """The file, its manifest, and the folder of its report. The manifest is written there."""
    from lm.sweep import file, manifest

    found = file.load(command.file, command.preset, command.overrides)
    entries = manifest.manifest(found.experiment, Path(command.results))
    return found, entries, Path(command.results) / found.name


@run.register
def _(command: cli.Train) -> int:
    from lm import data
    from lm.sweep import file
    from lm.train.loop import Stopped, train

    found = file.load(command.file, command.preset)
    base = override(found.experiment.base, command.overrides)
    name = base.id(data.fingerprint(base.data))
    folder = Path(command.out) if command.out else Path(command.results) / "runs" / name
    try:
        result = train(base, folder, machine(command))
    except Stopped as stopped:
        print(stopped)
        return 0
    print(f"held-out loss {result['heldout_loss']:.4f} nats/token, {result['heldout_bpb']:.4f} bits/byte: {folder}")
    return 0


@run.register
def _(command: cli.Plan) -> int:
    from lm.sweep import Ablation, manifest

    found, entries, folder = experiment(command)
    manifest.write(entries, folder / "manifest.jsonl")
    print(f"{found.name}: {found.question}\n")
    rows = [entry.row() for entry in entries]
    print(_table(rows, ("id", "arm", "seed", "status", "group", "params", "tokens", "flops")))
    left = [row for row in rows if row["status"] != "done"]
    groups = len({row["group"] for row in left})
    print(f"\n{len(rows)} runs, {len(left)} to do in {groups} programs: {sum(r['flops'] for r in left):.3g} FLOPs")
    if isinstance(found.experiment, Ablation):
        print(found.experiment.match_note())
    return 0


@run.register
def _(command: cli.RunSweep) -> int:
    from lm.sweep import manifest
    from lm.sweep.execute import execute
    from lm.train.loop import Stopped

    found, entries, folder = experiment(command)
    where = machine(command)
    manifest.write(entries, folder / "manifest.jsonl")
    print(f"{found.name}: {found.question}", flush=True)
    try:
        outcome = execute(entries, where, say=functools.partial(print, flush=True))
    except Stopped as stopped:
        print(stopped)
        return 0
    said = f"{outcome.done} runs done now, {outcome.before} before"
    print(said + (f", {len(outcome.failed)} failed" if outcome.failed else ""))
    _report(found, entries, folder, where.layout)
    if outcome.busy:
        print(f"{len(outcome.busy)} runs are held by another process; run the command again when it is done")
    return 1 if outcome.failed or outcome.busy else 0


@run.register
def _(command: cli.Report) -> int:
    from lm.sharding import layout

    _report(*experiment(command), layout())
    return 0


def _report(found: ExperimentFile, entries: tuple[Entry, ...], folder: Path, layout: Layout) -> None:
    from lm.errors import UserError
    from lm.sweep.report import report

    if not any(entry.status() == "done" for entry in entries):
        raise UserError(f"no run of {found.name} is done yet; lm sweep run {found.path} does them")
    made = report(found, entries, folder, layout)
    made.write(folder)
    print(f"\n{made.text()}\n\nreport: {folder / 'report.html'}")


@run.register
def _(command: cli.Status) -> int:
    found, entries, _ = experiment(command)
    rows = []
    for entry in entries:
        row = entry.row()
        row["note"] = ""
        if row["status"] == "done":
            row["note"] = f"held-out loss {entry.folder.result()['heldout_loss']:.4f}"
        elif row["status"] == "failed":
            row["note"] = entry.folder.failure()
        rows.append(row)
    print(_table(rows, ("id", "arm", "seed", "status", "note")))
    counts = {s: sum(row["status"] == s for row in rows) for s in ("done", "running", "failed", "interrupted", "new")}
    print(f"\n{found.name}: " + ", ".join(f"{n} {name}" for name, n in counts.items() if n))
    return 0


@run.register
def _(command: cli.Generate) -> int:
    from lm.infer import Greedy, Sample, generate, stream
    from lm.models import Execution
    from lm.train.load import load_run

    if command.temperature == 0 and (command.top_k is not None or command.top_p is not None):
        raise ConfigError("--top-k and --top-p need --temperature above 0; with 0 the likeliest token is taken")
    loaded = load_run(command.run)
    sampler = Greedy()
    if command.temperature != 0:
        sampler = Sample(temperature=command.temperature, top_k=command.top_k, top_p=command.top_p)
    codec = loaded.codec
    prompt = [codec.eot, *codec.encode(command.prompt).tolist()]
    asked: dict[str, Any] = {
        "prompts": [prompt],
        "new_tokens": command.new_tokens,
        "sampler": sampler,
        "seed": command.seed,
        "stop": codec.eot,
        "execution": Execution(compute=command.compute),
    }
    if command.stream:
        print(command.prompt, end="", flush=True)
        for text in _growing(codec.decode, (row[0] for row in stream(loaded.run.model, loaded.params, **asked))):
            print(text, end="", flush=True)
        print()
    else:
        (out,) = generate(loaded.run.model, loaded.params, **asked)
        print(command.prompt + codec.decode(out))
    return 0


def _growing(decode: Callable[[list[int]], str], tokens: Iterable[int | None]) -> Iterator[str]:
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


@run.register
def _(command: cli.Eval) -> int:
    from lm.train.load import evaluate_run, load_run

    found = evaluate_run(load_run(command.run), command.rows)
    print(
        f"held-out loss {found['loss']:.4f} nats/token, {found['bits_per_byte']:.4f} bits/byte, "
        f"accuracy {100 * found['accuracy']:.2f}% over {found['evaluated']:,} tokens"
    )
    return 0


@run.register
def _(command: cli.Config) -> int:
    value = _value(command.file, command)
    if command.diff is None:
        print(dumps(value, indent=2))
        return 0
    for path, (mine, other) in diff(value, _value(command.diff, command)).items():
        print(f"{path or 'all'}: {mine} -> {other}")
    return 0


def _value(path: str, command: cli.Config) -> Any:
    """The experiment of a file, or the run of a folder."""
    from lm.sweep import file
    from lm.train.folder import RunFolder

    if Path(path).is_dir():
        return override(RunFolder(Path(path)).config(), command.overrides)
    return file.load(path, command.preset, command.overrides).experiment


@run.register
def _(command: cli.Cost) -> int:
    from lm.sweep import Ablation, file
    from lm.train.memory import memory

    found = file.load(command.file, command.preset, command.overrides)
    rows = []
    for name, (base, _) in found.experiment.arms_resolved().items():
        cost = base.model.cost(base.data.length)
        rows.append(
            {
                "arm": name,
                "params": cost.params,
                "non-emb.": cost.non_embedding,
                "active": cost.active,
                "FLOPs/token": cost.flops / base.data.length,
                "train FLOPs": float(base.flops),
                "tokens": base.tokens,
                "KV B/token": cost.cache_bytes() / base.data.length,
                "memory MB": memory(base).total / 1e6,
            }
        )
    print(_table(rows, tuple(rows[0])))
    print("\nFLOPs/token: forward, at the run's length; training takes three times that. KV bytes at 2 bytes a number.")
    if isinstance(found.experiment, Ablation):
        print(found.experiment.match_note())
    print("memory: parameters, gradients, optimizer and an estimate of activations, on one device.")
    return 0


@run.register
def _(command: cli.Doctor) -> int:
    from lm import doctor

    problems = doctor.examine(sys.stdout)
    return 1 if problems else 0


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    """Plain text, numbers to the right."""
    import pandas as pd

    from lm.analysis.text import plain_columns, plain_table

    frame = pd.DataFrame(rows, columns=list(columns))
    return plain_table(frame, plain_columns(frame))
