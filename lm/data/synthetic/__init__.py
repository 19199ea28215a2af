"""Text that is made, from sources whose theory is known."""

from lm.data.synthetic.markov import Markov

__all__ = ["Markov"]
