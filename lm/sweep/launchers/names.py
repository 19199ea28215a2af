"""Names of things in a cluster. Kubernetes takes DNS labels (RFC 1035): a-z, 0-9 and '-', at most 63 of them."""

from __future__ import annotations

import hashlib
import re

from lm.sweep.launchers.work import LaunchError

LONGEST = 63
LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def dns_label(text: str) -> str:
    """The text as a DNS label: attention_ablation-smoke is attention-ablation-smoke. May be longer than LONGEST."""
    label = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return label if label[:1].isalpha() else f"lm-{label}".rstrip("-")


def fitted(name: str, room: int) -> str:
    """A DNS label of at most `room` characters; one that must be cut ends in a hash of the whole.

    Raises LaunchError, with a label that would do, if the name isn't one.
    """
    if not LABEL.fullmatch(name):
        raise LaunchError(
            f"'{name}' can't be the name of a job: that is a-z, 0-9 and '-', and begins with a letter; "
            f"try '{dns_label(name)}'"
        )
    if len(name) <= room:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return f"{name[: room - len(digest) - 1].rstrip('-')}-{digest}"
