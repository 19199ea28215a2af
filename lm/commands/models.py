"""What commands take for a model: a run's folder, one that `lm import` wrote, or a checkpoint of the hub's layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lm.data import Codec
    from lm.hub import Pretrained


def open_model(path: str, step: int | None = None) -> tuple[Pretrained, Codec]:
    """The model and its tokenizer. step: of a run's snapshot.

    Raises RunError, HubError or DataError with what is missing.
    """
    from lm import hub
    from lm.data import tokenizer_file
    from lm.hub import HubError
    from lm.train.load import load_run

    folder = Path(path)
    if hub.is_model(folder):
        if step is not None:
            raise HubError(f"{path} has no step {step}: only runs of ours have snapshots; leave out the step")
        return hub.load(folder), tokenizer_file(folder).train(())
    loaded = load_run(folder, step=step)
    return hub.Pretrained(loaded.run.model, loaded.params, {}), loaded.codec
