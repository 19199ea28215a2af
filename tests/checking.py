"""The runtime check of declared types that the tests run under."""

from collections.abc import Callable
from typing import Any

from beartype import beartype


def calls(function: Callable[..., Any]) -> Callable[..., Any]:
    """Checks calls, but not how things are made: configs check themselves, with messages that are tested."""
    return function if function.__name__ == "__init__" else beartype(function)
