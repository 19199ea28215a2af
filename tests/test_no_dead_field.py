"""Every field of every config does something: changing it changes a program, a cost, a schedule, data or a record.

A new config class is found by itself; it must be part of one of the BASES, each with the way to look at it.
"""

from __future__ import annotations

import importlib
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
import pytest
from flax import nnx

import lm
from lm import sharding
from lm.analysis.scaling import ladder as ladder_module
from lm.config import ConfigError, _classes, components, get, hints, is_config, options, replace, strip
from lm.data import BPE, Data, HuggingFace, Jsonl, Parquet, Text, huggingface, load
from lm.data.synthetic import Markov
from lm.errors import UserError
from lm.infer import Greedy, Sample
from lm.models import Decoder, Execution
from lm.nn import Llama3Scaling, Mask, RoPE, YaRN, gqa, mha, param
from lm.objectives import NextToken
from lm.sharding import ShardingRules
from lm.sweep import TPE, Hyperband, Median, Random, Search, SuccessiveHalving, choice, integers, log_uniform, uniform
from lm.sweep.experiment import Ablation, Sweep
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
from lm.train.loop import Machine, Pruned, train
from lm.train.rows import read
from lm.train.step import Program
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
    at, one = jnp.arange(6)[None], jnp.ones((1, 6), jnp.int32)
    return mask.pairs(6), np.asarray(mask.allowed(at, at, one, one)).tolist()


def see_sampler(sampler: Any) -> Any:
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8)), jnp.float32)
    return np.asarray(sampler.limited(logits) if isinstance(sampler, Sample) else sampler(logits, None)).tolist()


def see_rules(rules: ShardingRules) -> Any:
    where = sharding.layout("data=2,fsdp=2,tensor=2", rules)
    module = nnx.eval_shape(lambda: MODELS["qk norm with bias, softcap"].build(rngs=nnx.Rngs(params=0)))
    _, params = param.split(module)
    return str(where.batch()), str(sharding.shardings(params, param.axes(module), rules, where.mesh))


def see_experiment(experiment: Any) -> Any:
    from lm.sweep import speeds

    planned = [(plan.label, repr(plan.run)) for plan in experiment.planned()]
    if not isinstance(experiment, Ablation):
        return planned
    timed: list[int] = []

    def time(model: Any, context: int, batch: int) -> dict[str, Any]:
        timed.append(context)
        return {}

    done = {arm: run for arm, (run, _) in experiment.arms_resolved().items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speeds, "decode_speed", time)
        patch.setattr(speeds, "finished", lambda entries: done)
        speeds.decode_table(experiment, (), Path(_scratch("decode"), "table"))
    return planned, timed


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
    """What a trained run leaves: its rows without times, and its checkpoints."""
    folder = Path(_scratch("run"))
    train(run, folder, Machine(quiet=True))
    timed = ("seconds", "tokens_per_second", "mfu")
    rows = [{k: v for k, v in row.items() if k not in timed} for row in read(folder / "rows.jsonl")]
    return rows, sorted(p.name for p in (folder / "checkpoints").iterdir())


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
    return (
        *(Base(model, see_model) for model in MODELS.values()),
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
        Base(Mask(), see_mask),
        *(Base(sampler, see_sampler) for sampler in (Greedy(), Sample())),
        Base(sharding.fsdp_tp(), see_rules),
        Base(Sweep(base=run, points=({"seed": 1}, {"seed": 2})), see_experiment),
        Base(replace(matched, {"match": None, "decode_contexts": (4,)}), see_experiment),
        Base(matched, see_experiment),
        Base(LRTransfer(base=replace(run, {"model": MODELS["mha"]}), widths=(8, 16), rates=RATES), see_experiment),
        Base(SeedNoise(base=run, variant={"train.clip": None}, seeds=3, crossed=2), see_experiment),
        Base(Ladder(base=replace(run, {"model": MODELS["mha"]}), rungs=RUNGS, floor=1.5), see_ladder),
        *(Base(search, see_search) for search in searches(run)),
        *(
            Base(each, see_distribution)
            for each in (uniform(1, 2), log_uniform(1, 2), integers(1, 8), integers(2, 8, step=3), choice(1, 2))
        ),
        Base(run, see_run),
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
    ("Attention", "qk_norm"): [None],
    ("Adafactor", "factored_from"): [100],
    ("Training", "objective"): [NextToken(z_loss=0.5)],
    ("Training", "execution"): [Execution(remat="full")],
    ("Run", "record"): [Recording(every=3)],
    ("Ablation", "at"): ["model.block.mixer.position"],
    ("Ablation", "adjust"): ["model.block.mixer.head_width"],
    ("Ablation", "arms"): [{"a": mha(4), "b": mha(4, window=2)}],
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
        for path, node in nodes(base.value):
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


FIELDS = [(cls, field) for cls in _classes.values() if cls.__module__.startswith("lm.") for field in hints(cls)]


@pytest.mark.parametrize(("cls", "field"), FIELDS, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_a_field_does_something(cls: type, field: str) -> None:
    assert any(isinstance(node, cls) for base in bases() for _, node in nodes(base.value)), (
        f"no base has a {cls.__name__}: add one to bases() in {Path(__file__).name}"
    )
    assert alive(cls, field), f"{cls.__name__}.{field} changes nothing"


def test_a_dead_field_would_be_found() -> None:
    assert not _shows(0, "block.ff.activation", MODELS["mha"].pattern[0].ff.activation)  # type: ignore[union-attr]
    index = next(i for i, base in enumerate(bases()) if isinstance(base.value, Mask))
    assert not _shows(index, "window", 6)  # as long as the rows: such a window is none
    assert _shows(index, "window", 5)
    assert len(FIELDS) > 100
