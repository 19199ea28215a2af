"""Emergence: is a jump over scale the model's or the metric's? Needs no JAX.

from lm.analysis import emergence
found = emergence.curve_verdict(flops, exact)  # exact [seeds, n]
emergence.verdict(found, emergence.curve_verdict(flops, logprob), "exact match", "log-probability", "FLOPs").sentence
"""

from lm.analysis.emergence.bimodal import Modes, modes
from lm.analysis.emergence.evidence import Evidence, compare_shapes
from lm.analysis.emergence.grid import score_grid
from lm.analysis.emergence.measured import Measured, measured
from lm.analysis.emergence.midpoints import Midpoint, lead, midpoint, spread_at
from lm.analysis.emergence.mirage import edits_from_tokens, exact_from_tokens, per_token_needed
from lm.analysis.emergence.published import Scores, read_bigbench_scores, read_scores
from lm.analysis.emergence.report import emergence_report
from lm.analysis.emergence.scores import breakthrough, detectable, linearity, wilson
from lm.analysis.emergence.scores_report import scores_report
from lm.analysis.emergence.shapes import Axis, fit_shape
from lm.analysis.emergence.verdict import CurveVerdict, Verdict, curve_verdict, verdict

__all__ = [
    "Axis", "CurveVerdict", "Evidence", "Measured", "Midpoint", "Modes", "Scores", "Verdict", "breakthrough",
    "compare_shapes", "curve_verdict", "detectable", "edits_from_tokens", "emergence_report", "exact_from_tokens",
    "fit_shape", "lead", "linearity", "measured", "midpoint", "modes", "per_token_needed", "read_bigbench_scores",
    "read_scores", "score_grid", "scores_report", "spread_at", "verdict", "wilson",
]  # fmt: skip
