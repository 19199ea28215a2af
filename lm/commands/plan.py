"""What a run takes on a machine that isn't here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from lm.commands.options import Overrides, Shared
from lm.errors import UserError

if TYPE_CHECKING:
    from lm.plan import Choice, Step, Target
    from lm.train import Run


@dataclass(frozen=True, kw_only=True)
class Plan(Shared):
    """Memory, time and cost of a run on a machine that isn't here, by compiling its step for it; nothing is trained.

    lm plan experiments/attention_ablation.py --target v5e-4
    lm plan llama2-7b --target h100x8 --batch 128 --length 4096
    """

    what: Annotated[Positional[str], arg(metavar="FILE|MODEL")]
    """An experiment file, or the name of a model preset: then a training run of it in bfloat16 with AdamW."""
    overrides: Overrides = ()
    """Changes, e.g. base.train.accumulate=4 of an experiment, or train.execution.remat=full of a model's run."""
    target: str
    """The machine: v5e-16, v5p-256 (named as Cloud TPU does), v6e:8x8 (a topology), h100x8, ..."""
    preset: str | None = None
    """One of the file's `presets`, e.g. smoke."""
    mesh: str = ""
    """How its devices are used, e.g. fsdp=8,tensor=2. Default: what fits and is fastest by the cost model."""
    rules: str | None = None
    """How parameters are split: ddp, fsdp, fsdp_tp, ep, sp, sp_ulysses or pp. Default: by the mesh."""
    batch: int = 256
    """Rows of a batch, of a model preset; an experiment says its own."""
    length: int = 2048
    """Tokens of a row, of a model preset."""
    price: float | None = None
    """Dollars for a chip and hour. Default: a list price, where one is known."""
    compile: bool = True
    """Compile the step; without, all numbers are the cost model's."""

    def __call__(self) -> int:
        from lm.plan import Step, plan, target, text

        machine = target(self.target)
        fits = True
        for names, run in self._programs():
            step, mesh = Step.of(run), self.mesh
            if machine.devices > 1 and not mesh:
                choice = self._best(step, machine)
                step, mesh = choice.step, choice.mesh
                self._say_chosen(choice, Step.of(run))
            made = plan(step, machine, mesh, self.rules, self.compile)
            print(f"{', '.join(names)}: {text(made, run.train.steps, self.price)}\n", flush=True)
            fits = fits and made.fits
        return 0 if fits else 1

    def _programs(self) -> list[tuple[list[str], Run]]:
        """The runs that are different programs, with the arms that are trained by each."""
        from lm.plan import Step
        from lm.sweep import file

        if not (Path(self.what).is_file() or self.what.endswith(".py")):
            return [([self.what], self._run())]
        arms = file.load(self.what, self.preset, self.overrides).experiment.arms_resolved()
        found: dict[str, tuple[list[str], Run]] = {}
        for name, (run, _) in arms.items():
            found.setdefault(Step.of(run).key(), ([], run))[0].append(name)
        if not found:
            raise UserError(f"{self.what} trains nothing; there is nothing to plan")
        return list(found.values())

    def _run(self) -> Run:
        """A run of a model preset."""
        from lm.config import override
        from lm.data import Data
        from lm.models import Execution
        from lm.models.presets import preset
        from lm.train import Run, Training

        training = Training(steps=1000, execution=Execution(compute="bfloat16"))
        run = Run(model=preset(self.what), train=training, data=Data(length=self.length, batch=self.batch))
        return override(run, self.overrides)

    def _best(self, step: Step, machine: Target) -> Choice:
        from lm.plan import choices

        found = choices(step, machine, rules=self.rules)
        if not found:
            raise UserError(
                f"nothing that was tried fits on {machine.describe()}: take a larger machine, a smaller batch or --mesh"
            )
        return found[0]

    def _say_chosen(self, choice: Choice, step: Step) -> None:
        changes = choice.changes(step)
        print(f"chosen: {' '.join((f'--mesh {choice.mesh}', *(f'train.{change}' for change in changes)))}")
