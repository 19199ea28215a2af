"""Models of the Hugging Face hub: `load` makes them ours, `save` writes ours in their layout."""

from lm.hub.errors import HubError
from lm.hub.files import new_folder
from lm.hub.load import Pretrained, folder, is_model, load
from lm.hub.save import save

__all__ = ["HubError", "Pretrained", "folder", "is_model", "load", "new_folder", "save"]
