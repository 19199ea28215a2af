"""What goes on inside a model: what its heads look at and do, and how its embeddings are laid out."""

from lm.interpret.fourier import Fourier, concentration, gini, spectrum
from lm.interpret.heads import Heads, copying, entropy, prefix_matching, previous_token
from lm.interpret.patterns import attention_patterns

__all__ = [
    "Fourier",
    "Heads",
    "attention_patterns",
    "concentration",
    "copying",
    "entropy",
    "gini",
    "prefix_matching",
    "previous_token",
    "spectrum",
]
