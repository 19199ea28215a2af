"""One training run as a value: what is trained, how, on what, and what is written down."""

from __future__ import annotations

from lm.config import ConfigError, Count, Scalar, config, content_hash, lift
from lm.data import Data, Dataset, Source
from lm.models import Execution, Model
from lm.nn.cost import Cost
from lm.objectives import NextToken, Objective, prepared
from lm.train.measure import Measure
from lm.train.optimizers import AdamW, Optimizer
from lm.train.parametrization import Parametrization, Standard
from lm.train.schedules import Cosine, Schedule
from lm.train.spaced import log_spaced


@config
class Training:
    """How parameters are trained.

    steps: updates. clip: largest global norm of a gradient, None for no clipping. accumulate: parts that a batch is
    split into, one after another, to fit memory; the update is that of the whole batch. ema: decay of an exponential
    moving average of the weights, which is then what is evaluated; None for none. parametrization: what of this follows
    the model's width. init_scale: factor on the initial weights of the hidden matrices; tables and vectors keep theirs.
    """

    steps: Count
    objective: Objective = NextToken()
    optimizer: Optimizer = AdamW()
    schedule: Schedule = Cosine()
    clip: Scalar | None = 1.0
    accumulate: int = 1
    ema: Scalar | None = None
    parametrization: Parametrization = Standard()
    init_scale: Scalar = 1.0
    execution: Execution = Execution()

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps={self.steps} must be at least 1")
        if self.accumulate < 1:
            raise ConfigError(f"accumulate={self.accumulate} must be at least 1")
        if self.clip is not None and self.clip <= 0:
            raise ConfigError(f"clip={self.clip} must be positive, or None for no clipping")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ConfigError(f"ema={self.ema} must be between 0 and 1, or None for no average")
        if self.init_scale < 0:
            raise ConfigError(f"init_scale={self.init_scale} must not be negative")
        self.schedule.check(self.steps)


@config
class Recording:
    """What a run writes down.

    every: steps from one row of training metrics to the next. evaluations: held-out evaluations per doubling of the
    step (the last step is always evaluated; 0: only that). heldout_rows: sequences an evaluation uses, None for all.
    checkpoint_every: steps between checkpoints, None: only at the end or when stopped. keep: how many stay.
    measures: what is looked at besides, at each evaluation. snapshots: times per doubling of the step that the weights
    alone are kept for good (the last step's among them), to be looked at later; 0: never.
    """

    every: int = 10
    evaluations: int = 1
    heldout_rows: int | None = None
    checkpoint_every: int | None = None
    keep: int = 1
    measures: tuple[Measure, ...] = ()
    snapshots: int = 0

    def __post_init__(self) -> None:
        for name in ("every", "heldout_rows", "checkpoint_every", "keep"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} must be at least 1")
        for name in ("evaluations", "snapshots"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} must not be negative")
        names = [measure.name for measure in self.measures]
        taken = {"train", "heldout"} | {name for name in names if names.count(name) > 1}
        if clash := next((name for name in names if name in taken), None):
            raise ConfigError(f"measures: the name '{clash}' is taken; give that measure another name=")


@config
class Run:
    """A training run. `seed` draws the initial weights; `data.seed` orders the documents."""

    model: Model
    train: Training
    data: Source = Data()
    record: Recording = Recording()
    seed: Count = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 31:
            raise ConfigError(f"seed={self.seed} must be at least 0 and below 2^31")
        if self.data.batch % self.train.accumulate:
            raise ConfigError(f"train.accumulate={self.train.accumulate} must divide data.batch={self.data.batch}")
        self.data.check_measurable()
        self.train.objective.check(self.model, self.data.length)
        self.train.parametrization.check(self.model, self.train.optimizer)

    @property
    def tokens(self) -> int:
        """Target tokens of the whole run."""
        return self.train.steps * self.data.batch * self.data.length

    @property
    def cost(self) -> Cost:
        """The cost of a row as the objective makes the model read it, taken as one document."""
        return self.train.objective.cost(self.model, self.data.length)

    @property
    def flops(self) -> int:
        """Training FLOPs of the whole run, masked pairs not counted, every row taken as one document."""
        return self.cost.train_flops * self.data.batch * self.train.steps

    @property
    def steps_at_once(self) -> int:
        """How many steps are dispatched as one program."""
        return self.train.execution.at_once(self.flops / self.train.steps)

    def dataset(self) -> Dataset:
        """The data as the objective reads it. Raises DataError for data that can't be used."""
        return prepared(self.data.load(), self.train.objective, self.model)

    def evaluation_steps(self) -> frozenset[int]:
        """The steps after which the held-out loss is measured."""
        steps, each = self.train.steps, self.record.evaluations
        return frozenset(log_spaced(steps, each) if each else (steps,))

    def snapshot_steps(self) -> frozenset[int]:
        """The steps whose weights are kept."""
        return frozenset(log_spaced(self.train.steps, self.record.snapshots)) if self.record.snapshots else frozenset()

    def group(self, data_fingerprint: str) -> str:
        """What runs have in common that can be trained as one program with an axis of runs, step by step: all but
        the numbers that the program takes as inputs. The length of the training is one of those, and isn't free."""
        shape, _ = lift(self)
        return content_hash(shape, data_fingerprint, str(self.train.steps))

    def id(self, data_fingerprint: str) -> str:
        """The name of the run: a hash of everything that decides its result. Machine, mesh and launcher don't."""
        return content_hash(self, data_fingerprint)
