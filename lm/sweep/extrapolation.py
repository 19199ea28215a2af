"""An ablation that is looked at beyond the length it was trained at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lm.config import ConfigError, config
from lm.evals.lengths import Lengths
from lm.sweep.experiment import Ablation

if TYPE_CHECKING:
    from lm.analysis import Report


@config
class Extrapolation(Ablation):
    """An ablation whose base has `Lengths` among its measures. A measure with a scaling is a series of its own in each
    arm that has RoPE: the same weights, asked in another way."""

    def __post_init__(self) -> None:
        Ablation.__post_init__(self)
        if not self._lengths():
            raise ConfigError("an extrapolation needs a measure Lengths(lengths=(..)) in base.record.measures")

    def report(self, *, details: Any, **tables: Any) -> Report:
        from lm.analysis.extrapolation import with_lengths

        named = {measure.name: "" if measure.scaling is None else measure.name for measure in self._lengths()}
        return with_lengths(
            Ablation.report(self, **tables), tables["curves"], details, named, self.base.data.length, self.baseline
        )

    def _lengths(self) -> list[Lengths]:
        return [measure for measure in self.base.record.measures if isinstance(measure, Lengths)]
