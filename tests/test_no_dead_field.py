"""Every field of every config does something: changing it changes a program, a cost, a schedule, data or a record.

A new config class is found by itself; it must be part of one of the BASES, each with the way to look at it.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import nnx

import lm
from lm import sharding
from lm.analysis.emergence.figures import panels_figure
from lm.analysis.scaling import ladder as ladder_module
from lm.config import ConfigError, _classes, components, get, hints, is_config, options, replace, strip
from lm.data import (
    BPE,
    Data,
    HuggingFace,
    Jsonl,
    Parquet,
    TaskData,
    Text,
    TokenizerFile,
    huggingface,
    load,
    tokenizer_file,
)  # fmt: skip
from lm.data.synthetic import (
    Addition,
    Copying,
    Dyck,
    FewShot,
    KeyValueRecall,
    LinearRegression,
    Markov,
    MarkovChains,
    ModularArithmetic,
    ModularSum,
    MultiHop,
    Multiplication,
    RepeatedSequence,
    Reversing,
    Sorting,
    SparseParity,
    Task,
    WordUnscramble,
)
from lm.data.synthetic.task import uniforms
from lm.data.tokenizer_files import END, as_tokenizer_json
from lm.early import CBOW, GloVe, NGram, Word2Vec, stream
from lm.errors import UserError
from lm.evals import Answers, Estimates, Infilling, Kinds, Lengths, Positions
from lm.infer import Greedy, Sample
from lm.interpret import Fourier, Heads
from lm.models import Decoder, Execution
from lm.models.stack import Layers
from lm.models.trunk import Trunk
from lm.nn import Block, BlockSparse, Fixed, Llama3Scaling, Mask, RoPE, Strided, YaRN, gqa, mha, param
from lm.nn.kernels.attention import attend
from lm.objectives import NextToken
from lm.sharding import ShardingRules
from lm.sweep import (
    TPE,
    Above,
    Advantage,
    Claim,
    Delayed,
    Dwells,
    Emergence,
    Hyperband,
    Median,
    Near,
    Never,
    NeverBelow,
    Panel,
    Published,
    Random,
    Reaches,
    Search,
    Shape,
    Staircase,
    SuccessiveHalving,
    Takes,
    Together,
    Verdict,
    choice,
    integers,
    log_uniform,
    uniform,
)
from lm.sweep.experiment import Ablation, Experiment, Sweep
from lm.sweep.extrapolation import Extrapolation
from lm.sweep.ladder import Ladder, Rung
from lm.sweep.launchers import GKE, GPU, TPU, Bucket, SkyPilot, Slurm, Volume
from lm.sweep.launchers.work import Work
from lm.sweep.noise import SeedNoise
from lm.sweep.transfer import LRTransfer
from lm.train import (
    WSD,
    Adafactor,
    AdamW,
    Constant,
    Cosine,
    InverseSqrt,
    Linear,
    Lion,
    Muon,
    MuP,
    Recording,
    Run,
    Schedule,
    Training,
)
from lm.train.folder import RunFolder
from lm.train.lane import Lane
from lm.train.loop import Machine, Pruned, train
from lm.train.measure import Measure
from lm.train.rows import read
from lm.train.step import Program
from tests import model_bases, objective_bases
from tests.analysis.emergence.made import table
from tests.tiny import LENGTH, MODELS, packed

for found in pkgutil.walk_packages(lm.__path__, "lm."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)


# ---- ways to look at a config -------------------------------------------------------------------------------


def text_of(function: Callable[..., Any], *args: Any) -> str:
    """A program as text, with the values of its constants."""
    closed = jax.make_jaxpr(function)(*args)
    constants = [np.asarray(c).tolist() for jaxpr in _closed(closed) for c in jaxpr.consts]
    return f"{closed} {constants}"


def _closed(jaxpr: Any) -> Iterator[Any]:
    yield jaxpr
    for equation in jaxpr.jaxpr.eqns:
        for value in equation.params.values():
            for item in value if isinstance(value, tuple | list) else (value,):
                if hasattr(item, "consts"):
                    yield from _closed(item)


def see_model(model: Decoder) -> Any:
    graph, params = param.split(nnx.eval_shape(lambda: model.build(rngs=nnx.Rngs(params=0))))
    tokens = jax.ShapeDtypeStruct((2, LENGTH), jnp.int32)
    return model.cost(LENGTH), text_of(lambda p, t: param.merge(graph, p)(t), params, tokens)


def see_step(training: Training) -> Any:
    program = Program(MODELS["gqa"], training, sharding.layout())
    begins = text_of(lambda seed: program._init(seed, training.init_scale), 0)
    return begins, text_of(program._step, program.abstract_state(), packed(rows=2), {})


def see_optimizer(optimizer: Any) -> Any:
    axes = {"matrix": ("embed", "mlp"), "head": ("vocab", "embed"), "norm": ("embed",)}
    params = {"matrix": jnp.ones((4, 6)), "head": jnp.ones((8, 4)), "norm": jnp.ones(4)}

    def update(params: Any) -> Any:
        rule = optimizer.make(optimizer.learning_rate, axes)
        return rule.update(params, rule.init(params), params)

    return text_of(update, params)


def see_parametrization(rule: MuP) -> Any:
    """What it makes of a model, and of the rates of its parameters."""
    axes = {"matrix": ("embed", "mlp"), "head": ("vocab", "embed")}
    return repr(rule.of(MODELS["gqa"])), rule.factors(axes, MODELS["gqa"], AdamW())


def see_schedule(schedule: Schedule) -> Any:
    schedule.check(40)
    return np.asarray(schedule(jnp.arange(40), 40)).tolist()


def see_data(data: Data) -> Any:
    dataset = load(data)
    batches = [dataset.batch(0), dataset.batch(7), *dataset.heldout_batches(2)]
    return [{name: x.tolist() for name, x in batch.items()} for batch in batches]


def see_tokenizer(tokenizer: TokenizerFile) -> Any:
    codec = tokenizer.train(())
    return codec.bos, codec.eot, codec.vocab, codec.encode("a b").tolist()


def see_hub(corpus: HuggingFace) -> Any:
    """What is asked of the library, which is replaced: there is no hub in a test."""
    asked: list[Any] = []

    def load_dataset(*args: Any, **kwargs: Any) -> list[dict[str, str]]:
        asked.append((args, kwargs))
        return [{"text": f"row {i}", "other": f"column {i}"} for i in range(5)]

    original = huggingface._import
    huggingface._import = lambda _: types.SimpleNamespace(load_dataset=load_dataset)
    try:
        return list(corpus.documents()), asked
    finally:
        huggingface._import = original


def see_mask(mask: Mask) -> Any:
    at, ids = jnp.arange(6)[None], jnp.asarray([[-1, -1, 1, 1, 1, 1]])
    return mask.pairs(6), np.asarray(mask.allowed(at, at, ids, ids)).tolist()


def see_sampler(sampler: Any) -> Any:
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8)), jnp.float32)
    return np.asarray(sampler.limited(logits) if isinstance(sampler, Sample) else sampler(logits, None)).tolist()


def see_rules(rules: ShardingRules) -> Any:
    where = sharding.layout("fsdp=2,tensor=4", rules)  # more than there are key heads
    module = nnx.eval_shape(lambda: MODELS["gqa"].build(rngs=nnx.Rngs(params=0)))
    _, params = param.split(module)
    return str(where.batch()), str(sharding.shardings(params, param.axes(module), rules, where.mesh))


def see_split_rows(rules: ShardingRules) -> Any:
    """What attention sends between devices."""
    x, ids = jnp.zeros((1, 4, 2, 4)), jnp.zeros((1, 4), jnp.int32)
    told = dict.fromkeys(("q_positions", "k_positions", "q_segments", "k_segments"), ids)
    with sharding.use(sharding.layout("sequence=2", rules)):
        text = str(jax.make_jaxpr(lambda x: attend(x, x, x, mask=Mask(), scale=1.0, **told))(x))
    return {name: text.count(name) for name in ("ppermute", "all_to_all")}


def see_experiment(experiment: Any) -> Any:
    from lm.sweep import counted, speeds

    planned = [(plan.label, repr(plan.run)) for plan in experiment.planned()]
    if not isinstance(experiment, Ablation):
        return planned
    timed: list[int] = []
    asked: list[str] = []

    def time(model: Any, context: int, batch: int) -> dict[str, Any]:
        timed.append(context)
        return {}

    done = {arm: run for arm, (run, _) in experiment.arms_resolved().items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speeds, "decode_speed", time)
        patch.setattr(speeds, "finished", lambda entries: done)
        speeds.decode_table(experiment, (), Path(_scratch("decode"), "table"))
        entry = types.SimpleNamespace(planned=experiment.planned()[0], data="")
        patch.setattr(counted, "reading_most", lambda entries: {0: entry})
        patch.setattr(counted, "kept", lambda path: {})
        patch.setattr(counted, "counted", lambda ngram, run: asked.append(repr(ngram)) or {})
        counted.ngram_table(experiment, (), Path(_scratch("counted"), "table"))
    return planned, timed, asked


def see_ladder(ladder: Ladder) -> Any:
    """Its runs, and what its report is told."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ladder_module, "ladder_report", lambda **told: told)
        return see_experiment(ladder), ladder.report(curves=None)


def see_rendered(launcher: Any) -> Any:
    return launcher.render(Work(name="a", manifest=Path("/results/a/manifest.jsonl")))


def see_slurm(launcher: Slurm) -> Any:
    return launcher.parameters("a", workers=3)


def see_search(experiment: Search) -> Any:
    """Its runs and how they end, where a formula stands for the training."""
    from lm.sweep import study, trials

    def objective(trial: Any) -> float:
        rate, clip = (trial.point[path] for path in SEARCHED)
        for step in (1, 2, 4, 8, 16):
            if trial.judge(step, (rate - 0.3) ** 2 + clip / step):
                raise Pruned("pruned")
        return (rate - 0.3) ** 2 + clip / 16

    folder = Path(_scratch("search"))
    found = study.Study(experiment, folder)
    trials.search(found, objective, say=lambda _: None)
    ends = [(study.state_of(trial), trial.values) for trial in found.trials()]
    return [repr(plan.run) for plan in study.planned(experiment, folder)], ends


def see_distribution(distribution: Any) -> Any:
    return [distribution.at(share / 16) for share in range(16)]


def see_run(run: Run) -> Any:
    """What a trained run leaves: its rows without times, its checkpoints and snapshots; and how it is dispatched."""
    folder = RunFolder(Path(_scratch("run")))
    train(run, folder.path, Machine(quiet=True))
    timed = ("seconds", "tokens_per_second", "mfu")
    rows = [{k: v for k, v in row.items() if k not in timed} for row in read(folder.rows)]
    kept = [sorted(p.name for p in where.glob("*")) for where in (folder.checkpoints, folder.snapshots)]
    return rows, kept, run.steps_at_once


def see_measures(run: Run) -> Any:
    """What a run's measures write of its first weights: rows and details."""
    written: list[Any] = []
    home = types.SimpleNamespace(count_try=lambda *_: None)
    details = types.SimpleNamespace(append=written.append)
    lane: Any = types.SimpleNamespace(run=run, step=0, tries=1, home=home, details=details, write=written.append)
    lane._check_lease = lambda: None
    Lane.begin(lane, _program(run.model))
    Lane.measure(lane, 1, lane._state.params)
    return repr(written)  # a NaN is equal to itself


@cache
def _program(model: Decoder) -> Program:
    return Program(model, Training(steps=1), sharding.layout())


def see_ngram(model: NGram) -> Any:
    """What it says of another text than it was made from."""
    one, other = (np.random.default_rng(seed).zipf(1.5, 200).clip(max=9) for seed in (0, 1))
    return model.fit(stream([one]), 10).log_probs(stream([other])).tolist()[1:]


def see_vectors(model: Word2Vec | GloVe) -> Any:
    rows = np.random.default_rng(0).zipf(1.5, (20, 8)).clip(max=9)
    found = model.fit([[f"word{i}" for i in row] for row in rows])
    return found.words, found.vectors.tolist()


def see_task(task: Task) -> Any:
    """Its examples, and what it knows of them."""
    examples = task.make(uniforms(0, 0, 0, 60, task.draws))
    arrays = [*examples, *task.golds(examples).values(), np.asarray(task.kinds(examples))]
    return task.symbols, task.answer_tokens, [x.tolist() for x in arrays]


# ---- of what emerges ----------------------------------------------------------------------------------------


def see_claim(claim: Claim) -> Any:
    """What is said of a table, with a claim that holds on it."""
    steps = (1, 2, 4, 8, 16, 32, 64, 128)
    jump, late = (0, 0, 0.1, 0.9, 1, 1, 1, 1), (0, 0, 0, 0, 0.1, 0.9, 1, 1)
    bound = (0.05,) * 8
    over_sizes = {"m": [dict(zip(steps, jump, strict=True))], "n": [dict(zip(steps, late, strict=True))]}
    metrics = over_sizes | {"bound": [dict(zip(steps, bound, strict=True))]}
    phase = {"m": [dict(zip(steps, (1, 0.07, 0.06, 0.05, 0.04, 0.3, 0.3, 0.3), strict=True))]}
    return claim.judged(table({"arm": metrics, "phase": metrics | phase, "other": over_sizes | {"m": metrics["n"]}}))


def drawn(figure: Any) -> list[Any]:
    """What a figure shows, in words and numbers."""
    found = []
    for axes in figure.axes:
        lines = [(str(line.get_label()), *(np.asarray(x).tolist() for x in line.get_data())) for line in axes.lines]
        words = [axes.get_title("left"), axes.get_xlabel(), axes.get_ylabel(), *(t.get_text() for t in axes.texts)]
        found.append((words, axes.get_xscale(), axes.get_yscale(), lines))
    return found


def see_panel(panel: Panel) -> Any:
    curve = [{1: 0.5, 2: 0.25, 4: 0.125}]
    return drawn(panels_figure(table({"arm": {"a.m": curve, "a.n": curve, "a.g": curve}}), (panel,), "step"))


def see_emergence(experiment: Emergence) -> Any:
    """Its runs, and its report of what they might have written."""
    planned = experiment.planned()
    runs = [{"id": p.label, "arm": p.arm, "seed": p.seed, "status": "done", "heldout_loss": 1.0} for p in planned]
    rows = [
        {"arm": p.arm, "seed": p.seed, "step": step, "tokens": 3 * step, "flops": 5 * step, "split": "heldout"}
        | {"loss": 1 / step, "accuracy": step / 8}
        for p in planned
        for step in (1, 2, 4)
    ]
    details = [("only", 0, 4, "positions", "loss", i, 1 / (i + 1)) for i in range(3)]
    names = pd.Index(["arm", "seed", "step", "split", "name", "index", "value"])
    tables = {"runs": pd.DataFrame(runs), "curves": pd.DataFrame(rows), "details": pd.DataFrame(details, columns=names)}
    report = experiment.report(title="a", question="b", **tables)
    return [repr(p.run) for p in planned], report.text(), [(plot.name, drawn(plot.figure)) for plot in report.plots]


def see_published(experiment: Published) -> Any:
    report = experiment.report(title="a", question="b")
    return report.text(), [t.frame.to_csv() for t in report.tables]


# ---- what is looked at --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Base:
    """A config and how to look at it."""

    value: Any
    see: Callable[[Any], Any]


_folder: list[Path] = []
_count = [0]


def _scratch(name: str) -> str:
    _count[0] += 1
    path = _folder[0] / f"{name}-{_count[0]}"
    path.mkdir()
    return str(path)


@pytest.fixture(scope="module", autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory) -> None:
    _folder[:] = [tmp_path_factory.mktemp("no_dead_field")]


@cache
def corpora() -> tuple[Any, ...]:
    """The same forty documents as text, JSON lines and Parquet, with a second column or separator."""
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    folder, rng = Path(_scratch("text")), np.random.default_rng(0)
    rows = [{"text": "".join(rng.choice(list("abcdef ;"), size=60)), "other": f"another {i}" * 5} for i in range(40)]
    (folder / "a.txt").write_text("\n\n".join(row["text"] for row in rows))
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    return (
        Text(path=str(folder / "a.txt"), separator="\n\n"),
        Jsonl(path=str(folder / "a.jsonl")),
        Parquet(path=str(folder / "a.parquet")),
    )


def wide_heads(scaling: Any) -> Decoder:
    """Heads wide enough for every number of a RoPE scaling to tell frequencies apart."""
    mixer = gqa(4, 2, head_width=64, position=RoPE(scaling=scaling))
    return replace(MODELS["gqa"], {"layers": 1, "block.mixer": mixer})


def rendered() -> tuple[Any, ...]:
    """Launchers that write what an engine reads, one with each device and each place for results."""
    volume, bucket = Volume(name="results"), Bucket(url="gs://results")
    devices = (TPU(kind="v5e", topology="2x4"), GPU(kind="nvidia-l4"), None)
    places = (volume, bucket, volume)
    pairs = zip(devices, places, strict=True)
    return (
        *(GKE(image="a", results=place, device=device, cpu=8, memory="8Gi", queue="a") for device, place in pairs),
        SkyPilot(infra="gcp", results=bucket),
        SkyPilot(infra="kubernetes", results=volume, packages=()),
    )


RATES = (1e-3, 1e-2, 1e-1)
RUNGS = (Rung(width=8, steps=4), Rung(width=8, steps=8, rate=0.5))
SEARCHED = {"train.optimizer.learning_rate": log_uniform(1e-3, 1.0), "train.clip": uniform(0.5, 2.0)}


def searches(run: Run) -> tuple[Search, ...]:
    """One with each algorithm and each pruner."""
    algorithms = (
        Random(pruner=Median(startup=2, first=2)),
        TPE(startup=2, candidates=8, pruner=SuccessiveHalving(first=2, factor=2)),
        TPE(startup=4, pruner=Hyperband(first=1, factor=2)),
    )
    base = replace(run, {"train.steps": 32, "record.evaluations": 1})
    return tuple(Search(base=base, space=SEARCHED, trials=16, algorithm=each) for each in algorithms)


TASKS: tuple[Task, ...] = (
    Addition(digits=2, form="scratchpad"),
    Multiplication(),
    Copying(alphabet=5),
    Reversing(alphabet=5),
    Sorting(alphabet=5),
    Dyck(length=12),
    FewShot(classes=8, ways=2, shots=4),
    KeyValueRecall(),
    LinearRegression(dimensions=2, shots=3, codebook=8),
    MarkovChains(length=12),
    ModularArithmetic(modulus=7),
    ModularSum(terms=3),
    MultiHop(),
    RepeatedSequence(alphabet=8, length=12, shortest=2, longest=4),
    SparseParity(tasks=4, bits=6),
    WordUnscramble(commonest=50),
)
VECTORS = (
    Word2Vec(width=2, window=2, subsample=0.1, epochs=2, batch=32),
    Word2Vec(architecture=CBOW(), width=2, window=1, subsample=0.1, epochs=2, batch=32),
    GloVe(width=2, window=2, maximum=4.0, epochs=1, batch=8),
)
CLAIMS: tuple[Claim, ...] = (
    Reaches(expected="a", series="arm", metric="m", level=0.5),
    Never(expected="a", series="arm", metric="m", level=2.0),
    Delayed(expected="a", series="arm", early="m", late="n", level=0.5, factor=3.0),
    Together(expected="a", series="arm", metrics=("m", "n"), factor=5.0),
    Near(expected="a", series="arm", metric="m", gold="bound", tolerance=1.0),
    NeverBelow(expected="a", series="arm", metric="m", gold="bound", slack=0.06),
    Dwells(expected="a", series="phase", metric="m", gold="bound", tolerance=0.025, factor=7.0),
    Staircase(expected="a", series="arm", metrics="[mn]", level=0.5, count=2, factor=3.0),
    Takes(expected="a", series="arm", metrics="m", start=0.1, end=0.9, least=1.5, most=3.0),
    Shape(expected="a", series="arm", metric="m", kinds=("jump",)),
    Above(expected="a", of=("arm", "m"), over=("arm", "bound"), margin=0.9),
    Advantage(expected="a", of=("arm", "m"), over=("arm", "bound"), margin=0.1),
)


def measures() -> Iterator[Run]:
    """Untrained runs with each measure."""
    regression, modular = LinearRegression(dimensions=2, shots=3, codebook=8), ModularArithmetic(modulus=13)
    each: tuple[tuple[Task, Measure], ...] = (
        (Addition(digits=1), Answers(examples=12)),
        (regression, Estimates(examples=12, at=2)),
        (SparseParity(tasks=2, bits=4), Kinds(examples=12)),
        (MarkovChains(length=8), Positions(examples=12)),
        (modular, Fourier(top=2)),
        (modular, Heads(rows=2, length=4)),
    )
    for task, measure in each:
        model = Decoder(vocab=task.vocab, width=8, layers=1, block=Block(mixer=mha(2), ff=None))
        record = Recording(measures=(measure,))
        yield Run(model=model, data=TaskData(task=task), train=Training(steps=1), record=record)


def extrapolation(ablation: Ablation) -> Extrapolation:
    fields = {name: getattr(ablation, name) for name in hints(Ablation)}
    base = replace(ablation.base, {"record.measures": (Lengths(lengths=(4, 8)),)})
    return Extrapolation(**{**fields, "base": base})


def emergence(run: Run) -> Emergence:
    panels = (Panel(title="a", metrics=("heldout.loss",)), Panel(title="b", metrics=("heldout.accuracy",)))
    return Emergence(
        base=replace(run, {"record.measures": (Positions(),)}),
        arms={"only": {}},
        sizes={"one": {"train.clip": 0.5}, "two": {"model.layers": 2}},
        panels=panels,
        claims=(Reaches(expected="a", series="only, one", metric="heldout.loss", level=0.5, rising=False),),
        verdicts=(Verdict(series="only, one", hard="heldout.accuracy", soft="heldout.loss"),),
        profile="positions",
    )


@cache
def published() -> str:
    """A file of scores of twelve models on two tasks."""
    lines = ["model,family,params,tokens,easy_acc,hard_acc"]
    lines += [f"m{i},f{i % 6},{2**i}e6,{1.5**i}e9,{min(0.1 * i, 1)},{max(0.1 * i - 0.4, 0)}" for i in range(12)]
    path = Path(_scratch("published"), "scores.csv")
    path.write_text("\n".join(lines))
    return str(path)


def patterns() -> Iterator[Mask]:
    """Masks with each sparse pattern, of which something is beyond the reach of six tokens."""
    for pattern in (Strided(stride=2, count=2), Fixed(stride=3), BlockSparse(size=2, near=0, random=1)):
        yield Mask(pattern=pattern)


@cache
def bases() -> tuple[Base, ...]:
    text, jsonl, parquet = corpora()
    data = Data(corpus=text, length=16, batch=2, heldout=0.2)
    attention = MODELS["gqa"].pattern[0]
    run = Run(
        model=Decoder(vocab=256, width=16, layers=1, block=replace(attention, {"ff": None})),
        train=Training(steps=6),
        data=data,
        record=Recording(checkpoint_every=2, heldout_rows=4, every=2, keep=2),
    )
    optimizers = (AdamW(), Lion(), Muon(), Adafactor(factored_from=2, weight_decay=0.1))
    schedules = (Constant(warmup=2), Linear(), Cosine(), WSD(), InverseSqrt(warmup=4))
    training = Training(steps=20, ema=0.9)
    arms = {"a": gqa(4, 4), "b": gqa(4, 1)}
    matched = Ablation(base=replace(run, {"model": MODELS["gqa"]}), arms=arms, at="model.block.mixer", match="params")
    short_rows = replace(run, {"data.length": 4})
    of_text = ((Lengths(lengths=(4, 8), rows=4),), (Infilling(rows=4),))
    ablations = (matched, extrapolation(matched))
    return (
        *(Base(model, see_model) for model in MODELS.values()),
        *(Base(model, model_bases.see) for model in model_bases.MODELS),
        *(Base(objective, objective_bases.see) for objective in objective_bases.OBJECTIVES),
        *(Base(model, objective_bases.see_model) for model in objective_bases.MODELS),
        *(Base(how, objective_bases.see_unmasking) for how in objective_bases.UNMASKINGS),
        Base(tokenizer_of_a_file(), see_tokenizer),
        *(
            Base(wide_heads(scaling), see_model)
            for scaling in (YaRN(factor=4.0, original_length=4096), Llama3Scaling())
        ),
        *(Base(optimizer, see_optimizer) for optimizer in optimizers),
        Base(MuP(base_width=4), see_parametrization),
        *(Base(schedule, see_schedule) for schedule in schedules),
        Base(training, see_step),
        Base(data, see_data),
        *(Base(Data(corpus=corpus, length=16, batch=2, heldout=0.2), see_data) for corpus in (jsonl, parquet)),
        Base(replace(data, {"tokenizer": BPE(vocab=280)}), see_data),
        Base(HuggingFace(name="a/name"), see_hub),
        Base(replace(data, {"corpus": Markov(symbols=4, documents_count=40, length=15)}), see_data),
        *(Base(mask, see_mask) for mask in (Mask(), Mask(window=2), *patterns())),
        *(Base(sampler, see_sampler) for sampler in (Greedy(), Sample())),
        Base(sharding.fsdp_tp(), see_rules),
        Base(sharding.sp(), see_split_rows),
        Base(Sweep(base=run, points=({"seed": 1}, {"seed": 2})), see_experiment),
        *(Base(replace(kind, {"match": None, "decode_contexts": (4,)}), see_experiment) for kind in ablations),
        *(Base(kind, see_experiment) for kind in ablations),
        *(Base(replace(short_rows, {"record.measures": looked}), see_measures) for looked in of_text),
        Base(LRTransfer(base=replace(run, {"model": MODELS["mha"]}), widths=(8, 16), rates=RATES), see_experiment),
        Base(SeedNoise(base=run, variant={"train.clip": None}, seeds=3, crossed=2), see_experiment),
        Base(Ladder(base=replace(run, {"model": MODELS["mha"]}), rungs=RUNGS, floor=1.5), see_ladder),
        *(Base(task, see_task) for task in TASKS),
        Base(TaskData(task=ModularSum(terms=3), batch=4, heldout=0.3), see_data),
        Base(NGram(order=3), see_ngram),
        *(Base(each, see_vectors) for each in VECTORS),
        *(Base(claim, see_claim) for claim in CLAIMS),
        Base(Panel(title="a", metrics=("a.m", "a.n"), golds=("a.g",), levels={"b": 0.5}), see_panel),
        Base(emergence(run), see_emergence),
        Base(Published(scores=published(), tasks=("easy",), resamples=4), see_published),
        *(Base(search, see_search) for search in searches(run)),
        *(
            Base(each, see_distribution)
            for each in (uniform(1, 2), log_uniform(1, 2), integers(1, 8), integers(2, 8, step=3), choice(1, 2))
        ),
        Base(run, see_run),
        *(Base(each, see_measures) for each in measures()),
        *(Base(launcher, see_rendered) for launcher in rendered()),
        Base(Slurm(), see_slurm),
    )


# Values that a type alone doesn't give: (class, field) -> what to try.
HINTS: dict[tuple[str, str], list[Any]] = {
    ("TPU", "topology"): ["4x4"],
    ("TPU", "chips_per_host"): [4],
    ("GPU", "kind"): ["nvidia-b200"],
    ("GKE", "memory"): ["16Gi"],
    ("GKE", "env"): [{"A": "b"}],
    ("Bucket", "url"): ["gs://other"],
    ("Bucket", "mount"): ["/elsewhere"],
    ("Volume", "mount"): ["/elsewhere"],
    ("SkyPilot", "infra"): ["aws"],
    ("SkyPilot", "accelerators"): ["H100:8"],
    ("SkyPilot", "cpus"): ["8+"],
    ("SkyPilot", "memory"): ["32+"],
    ("SkyPilot", "image"): ["a"],
    ("SkyPilot", "packages"): [("a",)],
    ("SkyPilot", "env"): [{"A": "b"}],
    ("Slurm", "setup"): [("module load cuda",)],
    ("Slurm", "more"): [{"qos": "low"}],
    ("Attention", "position"): [None],
    ("TokenizerFile", "digest"): ["0"],
    ("PreNorm", "unnormed"): [("mixer",)],
    ("Decoder", "first"): [(MODELS["mha"].pattern[0],)],
    **model_bases.HINTS,
    **objective_bases.HINTS,
    ("Attention", "qk_norm"): [None],
    ("LongRoPE", "short"): [(1.0, 3.0)],
    ("LongRoPE", "long"): [(2.0, 8.0)],
    ("Adafactor", "factored_from"): [100],
    ("GroupLimit", "groups"): [2],
    ("Decoder", "vocab_multiple"): [64],
    ("Training", "objective"): [NextToken(z_loss=0.5)],
    ("Training", "execution"): [Execution(remat="full")],
    ("Run", "record"): [Recording(every=3)],
    ("Recording", "measures"): [(Positions(examples=2),)],
    ("Answers", "task"): [Addition(digits=1, form="reversed")],
    ("Answers", "choices"): [3],
    ("Estimates", "at"): [1],
    ("Fourier", "top"): [3],
    ("Heads", "symbols"): [6],
    ("NGram", "discounts"): [(0.75,)],
    ("Together", "metrics"): [("m", "bound")],
    ("Above", "of"): [("other", "m")],
    ("Above", "over"): [("other", "m")],
    ("Panel", "series"): [("other",)],
    ("Advantage", "of"): [("other", "m")],
    ("Advantage", "over"): [("other", "m")],
    ("Emergence", "arms"): [{"only": {}, "another": {"train.init_scale": 2.0}}],
    ("Emergence", "sizes"): [{"one": {"train.clip": 0.5}}],
    ("Published", "tasks"): [("hard",)],
    **{
        (kind, field): value
        for kind in ("Ablation", "Extrapolation")
        for field, value in {
            "at": ["model.block.mixer.position"],
            "adjust": ["model.block.mixer.head_width"],
            "arms": [{"a": mha(4), "b": mha(4, mask=Mask(window=2))}],
            "ngrams": [(NGram(order=1),)],
        }.items()
    },
    ("Lengths", "lengths"): [(2, 8)],
    ("Training", "parametrization"): [MuP(base_width=4)],
    ("LRTransfer", "widths"): [(4, 16)],
    ("LRTransfer", "rates"): [(1e-3, 2e-3, 4e-3)],
    ("SeedNoise", "variant"): [{"train.clip": 0.5}],
    ("Ladder", "law"): ["kaplan"],
    ("Ladder", "rungs"): [(Rung(width=8, steps=4), Rung(width=16, steps=4))],
    ("Sweep", "points"): [({"seed": 5},)],
    ("Search", "space"): [{**SEARCHED, "train.clip": uniform(1.0, 2.0)}],
    ("Choice", "options"): [(3, 4)],
    ("ShardingRules", "params"): [{"vocab": ("tensor",)}],
    ("ShardingRules", "activations"): [{"batch": ("data",)}],
}


# ---- changing a value by its type ---------------------------------------------------------------------------


def nodes(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every config inside a config, with its path."""
    if is_config(value):
        yield path, value
        for name in hints(type(value)):
            yield from nodes(getattr(value, name), f"{path}.{name}" if path else name)
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from nodes(item, f"{path}.{i}")


def owned(value: Any) -> Iterator[tuple[str, Any]]:
    """Those that the way to look at a base is about: of an experiment not its run, all of which is in its plans."""
    apart = ("base",) if isinstance(value, Experiment) else ()
    return ((path, node) for path, node in nodes(value) if path.split(".")[0] not in apart)


def tokenizer_of_a_file() -> TokenizerFile:
    folder = Path(_scratch("tokenizer"))
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(as_tokenizer_json(BPE(vocab=270).train(["a b c aa ab"])))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END}))
    return tokenizer_file(folder)


@cache
def pool() -> dict[str, list[Any]]:
    """Instances of each class, from everywhere in the bases."""
    out: dict[str, list[Any]] = {}
    for base in bases():
        for _, node in nodes(base.value):
            out.setdefault(type(node).__name__, []).append(node)
    return out


def others(value: Any, kind: Any) -> Iterator[Any]:
    """Values of type `kind` unlike `value`, likely ones first."""
    for option in options(kind):
        if get_origin(option) is Literal:
            yield from get_args(option)
        elif option is bool:
            yield not value
        elif option is int:
            yield from (value * 2, value + 1, value - 1, 1) if isinstance(value, int) else (2, 3, 1)
        elif option is float:
            yield from (value / 2, value * 2, value + 0.5, 0.5) if isinstance(value, float) else (0.5, 2.0)
        elif option is str:
            yield from (f"{value}x", ";", "other") if isinstance(value, str) else (";", "other")
        elif option is type(None):
            yield None
        elif isinstance(value, tuple):
            yield from (value[:-1], value[1:], (*value, *value))
        for tag in components(option):
            yield from pool().get(tag, [])


@cache
def seen(base: int) -> Any:
    return bases()[base].see(bases()[base].value)


def alive(cls: type, field: str) -> bool:
    """True if some other value of the field is seen somewhere, or is refused when it is used."""
    for index, base in enumerate(bases()):
        for path, node in owned(base.value):
            if isinstance(node, cls):
                where = f"{path}.{field}" if path else field
                if any(_shows(index, where, value) for value in candidates(cls, field, getattr(node, field))):
                    return True
                break  # other nodes of this class in this base would show no more
    return False


def candidates(cls: type, field: str, value: Any) -> list[Any]:
    given = HINTS.get((cls.__name__, field), [])
    tried = [*given, *others(value, strip(hints(cls)[field]))]
    return [x for i, x in enumerate(tried) if x != value and x not in tried[:i]][:12]


def _shows(index: int, where: str, value: Any) -> bool:
    base = bases()[index]
    try:
        changed = replace(base.value, {where: value})
    except ConfigError:
        return False  # this value doesn't fit here; another one must
    if get(changed, where) == get(base.value, where):
        return False
    try:
        return base.see(changed) != seen(index)
    except UserError:
        return True


PARTS = (Layers, Trunk)  # of decoders and encoders, which have their fields
CLASSES = [cls for cls in _classes.values() if cls.__module__.startswith("lm.") and cls not in PARTS]
FIELDS = [(cls, field) for cls in CLASSES for field in hints(cls)]


@pytest.mark.parametrize(("cls", "field"), FIELDS, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_a_field_does_something(cls: type, field: str) -> None:
    assert any(isinstance(node, cls) for base in bases() for _, node in owned(base.value)), (
        f"no base has a {cls.__name__}: add one to bases() in {Path(__file__).name}"
    )
    assert alive(cls, field), f"{cls.__name__}.{field} changes nothing"


def test_a_dead_field_would_be_found() -> None:
    assert not _shows(0, "block.ff.activation", MODELS["mha"].pattern[0].ff.activation)  # type: ignore[union-attr]
    index = next(i for i, base in enumerate(bases()) if isinstance(base.value, Mask))
    assert not _shows(index, "window", 6)  # as long as the rows: such a window is none
    assert _shows(index, "window", 5)
    assert len(FIELDS) > 100
