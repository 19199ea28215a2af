"""Models of the Hugging Face hub: `load` makes them ours, `save` writes ours in their layout."""

from lm.hub.errors import HubError
from lm.hub.load import Pretrained, load
from lm.hub.save import save

__all__ = ["HubError", "Pretrained", "load", "save"]
