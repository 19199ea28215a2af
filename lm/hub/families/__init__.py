"""The families of checkpoints that are known."""

from lm.config import unknown
from lm.hub.errors import HubError
from lm.hub.families.gpt2 import GPT2
from lm.hub.families.llama import Llama
from lm.hub.family import Family
from lm.hub.fields import Fields

FAMILIES: tuple[Family, ...] = (GPT2(), Llama())


def family_of(fields: Fields) -> Family:
    """The family of a config. Raises HubError for one that isn't known."""
    every = {name: family for family in FAMILIES for name in family.types}
    if fields.type not in every:
        raise HubError(f"{fields.where}: {unknown(fields.type, sorted(every), 'there is no model type')}")
    return every[fields.type]
