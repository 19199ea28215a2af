"""Generation."""

from lm.infer.generate import generate, stream
from lm.infer.sampling import Greedy, Sample, Sampler

__all__ = ["Greedy", "Sample", "Sampler", "generate", "stream"]
