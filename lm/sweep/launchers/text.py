"""Rendered work as text: YAML as a person would write it, the same for the same work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

# 1e-3 is text to YAML 1.1, which PyYAML writes, and a number to YAML 1.2, which others read: such text is quoted
LIKE_A_NUMBER = re.compile(r"[-+]?\.?\d")


def to_yaml(documents: Sequence[Any], header: str) -> str:
    """The documents in block style, keys in their order, after the header's lines as comments."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True  # what occurs twice is written twice

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else "'" if LIKE_A_NUMBER.match(value) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    comments = "".join(f"# {line}\n" for line in header.splitlines())
    several = len(documents) > 1
    return comments + yaml.dump_all(documents, Dumper=Dumper, sort_keys=False, width=120, explicit_start=several)
