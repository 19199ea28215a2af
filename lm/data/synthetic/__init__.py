"""Text and examples that are made, from sources whose theory is known."""

from lm.data.synthetic.arithmetic import Addition, Multiplication
from lm.data.synthetic.chains import MarkovChains
from lm.data.synthetic.dyck import Dyck
from lm.data.synthetic.fewshot import FewShot
from lm.data.synthetic.markov import Markov
from lm.data.synthetic.modular import ModularArithmetic
from lm.data.synthetic.parity import SparseParity
from lm.data.synthetic.recall import KeyValueRecall, MultiHop
from lm.data.synthetic.regression import LinearRegression
from lm.data.synthetic.repeats import RepeatedSequence
from lm.data.synthetic.sequences import Copying, Reversing, Sorting
from lm.data.synthetic.sums import ModularSum
from lm.data.synthetic.task import Examples, Task
from lm.data.synthetic.words import WordUnscramble

__all__ = [
    "Addition", "Copying", "Dyck", "Examples", "FewShot", "KeyValueRecall", "LinearRegression", "Markov",
    "MarkovChains", "ModularArithmetic", "ModularSum", "MultiHop", "Multiplication", "RepeatedSequence", "Reversing",
    "Sorting", "SparseParity", "Task", "WordUnscramble",
]  # fmt: skip
