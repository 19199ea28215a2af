"""What a model can do: answers by several metrics at once, losses by place and by kind of example."""

from lm.evals.answers import Answers
from lm.evals.estimates import Estimates
from lm.evals.kinds import Kinds
from lm.evals.positions import Positions

__all__ = ["Answers", "Estimates", "Kinds", "Positions"]
