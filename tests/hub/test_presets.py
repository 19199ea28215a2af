"""Presets of families that transformers has are written as that family, and read back as they are."""

import pytest

from lm.config import diff
from lm.errors import UserError
from lm.hub.families import FAMILIES
from lm.hub.fields import Fields
from lm.hub.save import family_for, regrouped
from lm.models.presets import PRESETS, preset

# by the longest beginning of a preset's name
TYPES = {
    "ladder-": "llama",
    "gpt1": "openai-gpt",
    "gpt2-": "gpt2",
    "gpt3-": "gpt2",
    "gptneox-": "gpt_neox",
    "pythia-": "gpt_neox",
    "tinyllama-": "llama",
    "llama": "llama",
    "mistral-": "mistral",
    "mixtral-": "mixtral",
    "qwen1.5-": "qwen2",
    "qwen2-": "qwen2",
    "qwen2.5-": "qwen2",
    "qwen3-": "qwen3",
    "qwen1.5-moe-": "qwen2_moe",
    "qwen2-57b-": "qwen2_moe",
    "qwen3-30b-": "qwen3_moe",
    "qwen3-235b-": "qwen3_moe",
    "gemma-": "gemma",
    "gemma2-": "gemma2",
    "gemma3-": "gemma3_text",
    "granite3-": "granite",
    "granite3-1b-": "granitemoe",
    "granite3-3b-": "granitemoe",
    "glm4-": "glm",
    "chatglm2-": "glm",
    "olmo2-": "olmo2",
    "phi": "phi3",
    "falcon-": "falcon",
    "bloom-": "bloom",
    "baichuan-": "llama",
    "deepseek-v3": "deepseek_v3",
    "mamba-": "mamba",
    "mamba2-": "mamba2",
    "bamba-": "bamba",
    "bert-": "bert",
    "roberta-": "roberta",
    "distilbert": "distilbert",
    "albert-": "albert",
    "modernbert-": "modernbert",
    "electra-": "electra",
    "t5-": "t5",
    "flan-t5-": "t5",
    "bart-": "bart",
}
# no family of transformers, or none that `lm.hub` has
ELSEWHERE = {"transformer-base", "transformer-big", "baichuan-13b", "llada-8b", "deepseek-v2-lite", "jamba-52b"}
ELSEWHERE |= {"gptj-6b", "gpt3-13b", "chinchilla-70b", "electra-small", "electra-base", "electra-large"}
ELSEWHERE |= {name for name in PRESETS if name.startswith(("gopher-", "palm-"))}


@pytest.mark.parametrize("name", [name for name in PRESETS if name not in ELSEWHERE])
def test_written_as_its_family_and_read_back(name: str) -> None:
    kind = TYPES[max((start for start in TYPES if name.startswith(start)), key=len)]
    family = next(family for family in FAMILIES if kind in family.types)
    model = preset(name)
    config = family.write(model)
    assert config["model_type"] == kind
    assert not diff(regrouped(model), family.read(Fields(config)))
    assert family_for(model, prefer=kind) == (family, config)


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_others_are_refused(name: str) -> None:
    with pytest.raises(UserError):
        family_for(preset(name))
