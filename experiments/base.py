"""What the experiments here share: a small decoder on public-domain text, and how it is made smaller for a try."""

from typing import Any

from lm.config import replace
from lm.data import KJV, Data, TaskData
from lm.data.synthetic import Task
from lm.models import Decoder
from lm.nn import MLP, Block, Learned, RMSNorm, gqa, mha, swiglu
from lm.train import AdamW, Constant, Cosine, Recording, Run, Training, mup
from lm.train.measure import Measure


def small_decoder() -> Run:
    """0.8M parameters, bytes of the King James Bible (4.2 MB), 400 steps of 8 x 256 bytes."""
    return Run(
        model=Decoder(
            vocab=256,
            width=128,
            layers=4,
            block=Block(mixer=gqa(8, kv_heads=8), ff=swiglu(344), norm=RMSNorm()),
        ),
        data=Data(corpus=KJV(), length=256, batch=8),
        train=Training(
            steps=400, optimizer=AdamW(learning_rate=3e-3, weight_decay=0.1), schedule=Cosine(warmup=40, final=0.1)
        ),
        record=Recording(every=10, evaluations=1, heldout_rows=256),
    )


def tiny_decoder() -> Run:
    """0.2M parameters, bytes of the King James Bible, 400 steps of 16 x 128 bytes."""
    return replace(
        small_decoder(),
        {
            "model": Decoder(vocab=256, width=64, layers=4, block=Block(mixer=mha(4), ff=swiglu(176))),
            "data.length": 128,
            "data.batch": 16,
            "record.heldout_rows": 512,
        },
    )


def ladder_base() -> Run:
    """A small decoder in muP, at any width: the rate of a width of 32 serves all (see lr_transfer.py)."""
    run = replace(
        small_decoder(),
        {
            "model": Decoder(vocab=256, width=64, layers=2, block=Block(mixer=mha(8), ff=swiglu(176))),
            "data.length": 128,
            "data.batch": 16,
            "train.steps": 100,
            "train.schedule.warmup": 10,
            "train.optimizer.learning_rate": 2.0**-6,
            "record.evaluations": 0,
        },
    )
    return mup(run, base_width=32)


def small_on_task(task: Task, *measures: Measure, steps: int, batch: int = 64, attention_only: bool = False) -> Run:
    """Two layers of width 64 with learned positions on a task, at a constant rate, looked at often on a logarithmic
    axis."""
    ff = None if attention_only else MLP(hidden=256)
    return Run(
        model=Decoder(
            vocab=task.vocab,
            width=64,
            layers=2,
            block=Block(mixer=mha(4, position=None), ff=ff),
            position=Learned(length=task.length),
            tied=False,
            embed_std=0.02,  # so that it begins with equal probabilities for all
        ),
        data=TaskData(task=task, batch=batch),
        train=Training(
            steps=steps,
            optimizer=AdamW(learning_rate=3e-3, weight_decay=0.01, b2=0.98),
            schedule=Constant(warmup=50),
        ),
        record=Recording(every=10, evaluations=4, measures=measures),
    )


def smoke(**more: Any) -> dict[str, Any]:
    """Changes that make an experiment end in a few minutes: enough to see every part of it work, not to believe it."""
    return {
        "seeds": 2,
        "base.train.schedule.warmup": 5,
        "base.train.steps": 40,
        "base.data.batch": 4,
        "base.record.heldout_rows": 32,
        **more,
    }
