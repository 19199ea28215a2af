from lm.errors import UserError


class HubError(UserError):
    """A model that can't be read from, or written in, the layout of Hugging Face."""
