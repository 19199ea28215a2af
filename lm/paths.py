"""Where things are kept between runs."""

import os
from pathlib import Path


def cache_dir(*parts: str) -> Path:
    """A folder for what can be made again: `$LM_CACHE`, else `$XDG_CACHE_HOME/lm`, else `~/.cache/lm`."""
    root = os.environ.get("LM_CACHE")
    if not root:
        root = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "lm")
    return Path(root, *parts)
