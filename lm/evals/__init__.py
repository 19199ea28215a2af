"""What a model can do: answers by several metrics at once, losses by place, by kind of example and at other lengths."""

from lm.evals.answers import Answers
from lm.evals.estimates import Estimates
from lm.evals.infilling import Infilling
from lm.evals.kinds import Kinds
from lm.evals.lengths import Lengths
from lm.evals.positions import Positions

__all__ = ["Answers", "Estimates", "Infilling", "Kinds", "Lengths", "Positions"]
