"""Models of the Hugging Face hub: reading one, and writing one of ours in its layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from lm.commands.options import Shared


@dataclass(frozen=True, kw_only=True)
class Import(Shared):
    """Make a model folder of ours from a checkpoint in the Hugging Face layout. `lm generate` takes either.

    lm import meta-llama/Llama-3.2-1B models/llama-1b
    """

    path: Positional[str]
    """A folder with config.json and *.safetensors, or a name on the hub."""
    out: Positional[str]
    """The new folder."""

    def __call__(self) -> int:
        from lm import hub
        from lm.hub import ours, tokenizers

        source = hub.folder(self.path)
        model = hub.load(source)
        with hub.new_folder(self.out) as target:
            ours.write(target, model.spec, model.params, model.config)
            tokenizers.copy(source, target)
        print(f"{model.config['model_type']} of {model.spec.cost(1).params:,} parameters: {self.out}")
        return 0


@dataclass(frozen=True, kw_only=True)
class Export(Shared):
    """Write a trained run, or a model folder, in the Hugging Face layout, with its tokenizer.

    lm export results/runs/ID exported
    """

    run: Positional[str]
    """The run's folder, or one that lm import wrote."""
    out: Positional[str]
    """The new folder."""
    step: int | None = None
    """Use the snapshot of this step (record.snapshots). Default: the newest checkpoint."""

    def __call__(self) -> int:
        from lm import hub
        from lm.commands.models import open_model
        from lm.hub import tokenizers

        model, codec = open_model(self.run, self.step)
        ends = {} if model.config else {"bos_token_id": codec.eot, "eos_token_id": codec.eot}

        def tokenizer(folder: Path) -> None:
            if model.config:
                tokenizers.copy(Path(self.run), folder)
            else:
                tokenizers.write(codec, folder)

        exported = hub.Pretrained(model.spec, model.params, ends | model.config)
        family = hub.save(exported, self.out, beside=tokenizer)
        print(f"{family} of {model.spec.cost(1).params:,} parameters: {self.out}")
        return 0
