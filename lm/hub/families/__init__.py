"""The families of checkpoints that are known."""

from lm.config import unknown
from lm.hub.errors import HubError
from lm.hub.families.bart import Bart, Marian, MBart, Pegasus
from lm.hub.families.bert import Bert, Camembert, Roberta, XLMRoberta
from lm.hub.families.bert_like import Albert, DistilBert, Electra
from lm.hub.families.fused import MPT, Bloom, Falcon, GPTNeoX
from lm.hub.families.gemma import Gemma, Gemma2, Gemma3
from lm.hub.families.glm import GLM, GLM4, Phi3
from lm.hub.families.gpt2 import GPT1, GPT2
from lm.hub.families.llama import Llama
from lm.hub.families.llama_like import Granite, Mistral, OLMo2, Qwen2, Qwen3
from lm.hub.families.mamba import Bamba, Mamba1, Mamba2LM
from lm.hub.families.modernbert import ModernBert
from lm.hub.families.moe import DeepSeekV3, GraniteMoE, Mixtral, Qwen2MoE, Qwen3MoE
from lm.hub.families.switch import Switch
from lm.hub.families.t5 import MT5, T5, UMT5
from lm.hub.family import Family
from lm.hub.fields import Fields

FAMILIES: tuple[Family, ...] = (
    GPT1(),
    GPT2(),
    GPTNeoX(),
    Falcon(),
    Bloom(),
    MPT(),
    Llama(),
    Mistral(),
    Qwen2(),
    Qwen3(),
    Granite(),
    OLMo2(),
    Gemma(),
    Gemma2(),
    Gemma3(),
    GLM(),
    GLM4(),
    Phi3(),
    Mixtral(),
    Qwen2MoE(),
    Qwen3MoE(),
    GraniteMoE(),
    DeepSeekV3(),
    Mamba1(),
    Mamba2LM(),
    Bamba(),
    Switch(),
    T5(),
    MT5(),
    UMT5(),
    Bart(),
    MBart(),
    Pegasus(),
    Marian(),
    Bert(),
    Roberta(),
    XLMRoberta(),
    Camembert(),
    DistilBert(),
    Electra(),
    Albert(),
    ModernBert(),
)


def family_of(fields: Fields) -> Family:
    """The family of a config. Raises HubError for one that isn't known."""
    every = {name: family for family in FAMILIES for name in family.types}
    if fields.type not in every:
        raise HubError(f"{fields.where}: {unknown(fields.type, sorted(every), 'there is no model type')}")
    return every[fields.type]
