"""Generation."""

from lm.infer.generate import generate
from lm.infer.sampling import Greedy, Sample, Sampler

__all__ = ["Greedy", "Sample", "Sampler", "generate"]
