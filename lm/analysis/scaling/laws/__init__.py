"""The laws that are known by a name."""

from lm.analysis.scaling.law import Law
from lm.analysis.scaling.laws.bnsl import BNSL
from lm.analysis.scaling.laws.chinchilla import Chinchilla
from lm.analysis.scaling.laws.data_constrained import DataConstrained
from lm.analysis.scaling.laws.downstream import Accuracy, TaskError
from lm.analysis.scaling.laws.fine_grained import FineGrained
from lm.analysis.scaling.laws.kaplan import Kaplan
from lm.analysis.scaling.laws.moe import MixtureOfExperts
from lm.analysis.scaling.laws.overtraining import Overtraining
from lm.analysis.scaling.laws.power import BatchSize, LearningRate, Power
from lm.analysis.scaling.laws.precision import PostTraining, Precision
from lm.analysis.tables import TableError
from lm.errors import unknown

ALL: tuple[Law, ...] = (
    Chinchilla(),
    Kaplan(),
    DataConstrained(),
    Overtraining(),
    MixtureOfExperts(),
    FineGrained(),
    Precision(),
    PostTraining(),
    BNSL(),
    Power(),
    LearningRate(),
    BatchSize(),
    TaskError(),
    Accuracy(),
)
LAWS: dict[str, Law] = {law.name: law for law in ALL}


def law_of(law: str | Law) -> Law:
    """The law of a name. Raises TableError for one that doesn't exist, with the nearest that does."""
    if isinstance(law, Law):
        return law
    if law not in LAWS:
        raise TableError(unknown(law, LAWS, "there is no law"))
    return LAWS[law]
