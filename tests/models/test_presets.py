"""Presets have the parameter counts of the published models, and the ladder the sizes in its names."""

import math
import time
from typing import Any

import jax
import pytest
from flax import nnx

from lm.config import ConfigError, dumps, loads, replace
from lm.models import Decoder, Electra, EncoderDecoder, Headed, Model
from lm.models.presets import (
    DECODERS,
    ENCODER_DECODERS,
    ENCODERS,
    EXPERTS,
    HISTORY,
    MODERN,
    PRESETS,
    STATE_SPACE,
    llama_style,
    preset,
)
from lm.nn import param

PUBLISHED = {  # of the released weights
    "gpt2-124m": 124_439_808,
    "gpt2-355m": 354_823_168,
    "gpt2-774m": 774_030_080,
    "gpt2-1.5b": 1_557_611_200,
    "pythia-14m": 14_067_712,
    "pythia-31m": 30_494_720,
    "pythia-70m": 70_426_624,
    "pythia-160m": 162_322_944,
    "pythia-410m": 405_334_016,
    "pythia-1b": 1_011_781_632,
    "pythia-1.4b": 1_414_647_808,
    "pythia-2.8b": 2_775_208_960,
    "pythia-6.9b": 6_857_302_016,
    "tinyllama-1.1b": 1_100_048_384,
    "llama-7b": 6_738_415_616,
    "llama2-7b": 6_738_415_616,
    "llama3-8b": 8_030_261_248,
    "llama3.1-8b": 8_030_261_248,
    "llama3.2-1b": 1_235_814_400,
    "llama3.2-3b": 3_212_749_824,
}

NON_EMBEDDING = {  # Biderman et al. 2023, table 1
    "pythia-70m": 18_915_328,
    "pythia-160m": 85_056_000,
    "pythia-410m": 302_311_424,
    "pythia-1b": 805_736_448,
    "pythia-1.4b": 1_208_602_624,
    "pythia-2.8b": 2_517_652_480,
    "pythia-6.9b": 6_444_163_072,
}

V1_1 = {"small": 76_961_152, "base": 247_577_856, "large": 783_150_080, "xl": 2_849_757_184, "xxl": 11_135_332_352}
PUBLISHED_PAIRS = {  # the same; BART's without the two rows before the first position of each side
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "t5-3b": 2_851_598_336,
    "t5-11b": 11_307_321_344,
    **{f"{kind}-{size}": count for kind in ("t5-v1_1", "flan-t5") for size, count in V1_1.items()},
    "bart-base": 139_420_416 - 2 * 2 * 768,
    "bart-large": 406_291_456 - 2 * 2 * 1024,
}
ROUND = {"transformer-base": 65e6, "transformer-big": 213e6}  # Vaswani et al. 2017, table 3

QWEN2 = {"0.5b": 494_032_768, "1.5b": 1_543_714_304, "7b": 7_615_616_512, "72b": 72_706_203_648}
RELEASED = {  # of released weights too, tied tables once
    "gpt1": 116_534_784,
    "gptj-6b": 6_050_882_784,
    "gptneox-20b": 20_554_567_680,
    "falcon-7b": 6_921_720_704,
    "mistral-7b": 7_241_732_096,
    "mistral-7b-v0.3": 7_248_023_552,
    "qwen1.5-0.5b": 463_987_712,
    "qwen1.5-1.8b": 1_836_828_672,
    "qwen1.5-4b": 3_950_369_280,
    "qwen1.5-7b": 7_721_324_544,
    "qwen1.5-14b": 14_167_290_880,
    "qwen1.5-32b": 32_512_218_112,
    "qwen1.5-72b": 72_287_920_128,
    **{f"{kind}-{size}": count for kind in ("qwen2", "qwen2.5") for size, count in QWEN2.items()},
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "gemma-2b": 2_506_172_416,
    "gemma-7b": 8_537_680_896,
    "gemma2-2b": 2_614_341_888,
    "gemma2-9b": 9_241_705_984,
    "gemma2-27b": 27_227_128_320,
    "gemma3-1b": 999_885_952,
    "glm4-9b": 9_399_951_360,
    "chatglm2-6b": 6_243_584_000,
    "olmo2-1b": 1_484_916_736,
    "olmo2-7b": 7_298_617_344,
    "olmo2-13b": 13_716_198_400,
    "olmo2-32b": 32_234_279_936,
    "phi3-mini": 3_821_079_552,
    "phi3-medium": 13_960_238_080,
    "phi4": 14_659_507_200,
    "bloom-560m": 559_214_592,
    "bloom-1.1b": 1_065_314_304,
    "bloom-1.7b": 1_722_408_960,
    "bloom-3b": 3_002_557_440,
    "bloom-7.1b": 7_069_016_064,
    "bloom-176b": 176_247_271_424,
    "baichuan-7b": 7_000_559_616,
    "baichuan-13b": 13_264_901_120,
    "mixtral-8x7b": 46_702_792_704,
    "qwen1.5-moe-a2.7b": 14_315_784_192,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
    "deepseek-v2-lite": 15_706_484_224,
    "jamba-52b": 51_570_323_328,
    "mamba-130m": 129_135_360,
    "mamba-370m": 371_516_416,
    "mamba-790m": 793_204_224,
    "mamba-1.4b": 1_372_178_432,
    "mamba-2.8b": 2_768_345_600,
    "mamba2-130m": 128_989_632,
    "mamba2-2.7b": 2_702_599_680,
    "bert-base": 109_514_298,
    "bert-large": 335_174_458,
    "roberta-base": 124_697_433 - 2 * 768,
    "roberta-large": 355_412_057 - 2 * 1024,
    "distilbert": 66_985_530,
    "modernbert-base": 149_655_232,
    "modernbert-large": 395_881_664,
}
STATED = {  # in billions, to all the digits that the source gives
    "gemma3-27b": "27.0",
    "granite3-2b": "2.5",
    "granite3-8b": "8.17",
    "granite3-1b-a400m": "1.3",
    "granite3-3b-a800m": "3.3",
    "llada-8b": "8.02",  # Nie et al. 2025
    "mixtral-8x22b": "141",
    "qwen2-57b-a14b": "57",
    "deepseek-v3": "671",
    "bamba-9b": "9.78",
    "mamba2-370m": "0.37",
    "mamba2-780m": "0.78",
    "mamba2-1.3b": "1.3",
    "palm-8b": "8.63",  # Chowdhery et al. 2022, table 1
    "palm-62b": "62.50",
    "gpt3-125m": "0.125",  # Brown et al. 2020, table 2.1
    "gpt3-760m": "0.760",
    "gpt3-1.3b": "1.3",
    "gpt3-2.7b": "2.7",
    "gpt3-6.7b": "6.7",
    "electra-small-discriminator": "0.014",  # Clark et al. 2020, table 1
}
ACTIVE = {  # likewise, of one token
    "mixtral-8x7b": "13",
    "mixtral-8x22b": "39",
    "qwen1.5-moe-a2.7b": "2.7",
    "qwen2-57b-a14b": "14",
    "qwen3-235b-a22b": "22",
    "jamba-52b": "12",
}
WITHOUT_TABLES = {  # Gemma Team 2025, table 1; Nie et al. 2025
    "gemma3-1b": "0.698",
    "gemma3-4b": "3.209",
    "gemma3-12b": "10.759",
    "llada-8b": "6.98",
}
RELATIVE = {  # Rae et al. 2021, table 1, and Hoffmann et al. 2022, table 4, whose models have relative positions
    "gopher-44m": "0.044",
    "gopher-117m": "0.117",
    "gopher-417m": "0.417",
    "gopher-1.4b": "1.4",
    "gopher-7.1b": "7.1",
    "gopher-280b": "280",
    "chinchilla-70b": "70",
}
ACTIVE_WITHOUT_TABLES = {"granite3-1b-a400m": "0.4", "granite3-3b-a800m": "0.8"}
ALBERTS = {"base": 12e6, "large": 18e6, "xlarge": 60e6, "xxlarge": 235e6}  # Lan et al. 2019, table 1
ROUND |= {  # the size of the paper's title or name, as it is
    "gpt3-350m": 350e6,
    "gpt3-13b": 13e9,
    "gpt3-175b": 175e9,
    "palm-540b": 540.35e9,
    "falcon-40b": 40e9,
    "electra-base-discriminator": 110e6,
    "electra-large-discriminator": 335e6,
}

LADDER = [name for name in PRESETS if name.startswith("ladder-")]


def as_stated(count: int, billions: str) -> bool:
    """Whether a count is what it is said to be, within the rounding of the last digit."""
    digits = len(billions.partition(".")[2])
    return abs(count / 1e9 - float(billions)) <= 0.5 * 10**-digits


@pytest.mark.parametrize("name", [*PUBLISHED, *PUBLISHED_PAIRS, *RELEASED])
def test_counts_are_the_published_ones(name: str) -> None:
    assert preset(name).cost(1).params == {**PUBLISHED, **PUBLISHED_PAIRS, **RELEASED}[name]


@pytest.mark.parametrize("name", STATED)
def test_counts_are_the_stated_ones(name: str) -> None:
    assert as_stated(preset(name).cost(1).params, STATED[name])


@pytest.mark.parametrize("name", ACTIVE)
def test_active_counts_are_the_stated_ones(name: str) -> None:
    assert as_stated(preset(name).cost(1).active, ACTIVE[name])


@pytest.mark.parametrize("name", ACTIVE_WITHOUT_TABLES)
def test_active_counts_without_tables_are_the_stated_ones(name: str) -> None:
    cost = preset(name).cost(1)
    assert as_stated(cost.active - cost.embedding, ACTIVE_WITHOUT_TABLES[name])


@pytest.mark.parametrize("name", WITHOUT_TABLES)
def test_counts_without_tables_are_the_stated_ones(name: str) -> None:
    assert as_stated(preset(name).cost(1).non_embedding, WITHOUT_TABLES[name])


@pytest.mark.parametrize("name", RELATIVE)
def test_what_is_missing_are_the_matrices_of_relative_positions(name: str) -> None:
    model: Any = preset(name)
    assert as_stated(model.cost(1).params + model.layers * model.width**2, RELATIVE[name])


@pytest.mark.parametrize("size", ALBERTS)
def test_alberts_have_about_the_published_counts(size: str) -> None:
    """With their poolers. The paper's count of the largest is 5% above that of its weights."""
    model = preset(f"albert-{size}")
    assert model.cost(1).params + model.width * (model.width + 1) == pytest.approx(ALBERTS[size], rel=0.055)


@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_electras_are_their_halves_with_one_table(size: str) -> None:
    both: Any = preset(f"electra-{size}")
    assert both.generator == preset(f"electra-{size}-generator")
    assert both.discriminator == preset(f"electra-{size}-discriminator")
    table = both.vocab * both.discriminator.body.table_width
    assert both.cost(1).params == both.generator.cost(1).params + both.discriminator.cost(1).params - table


@pytest.mark.parametrize("name", ROUND)
def test_counts_are_about_the_published_round_ones(name: str) -> None:
    assert preset(name).cost(1).params == pytest.approx(ROUND[name], rel=0.035)


@pytest.mark.parametrize("name", NON_EMBEDDING)
def test_non_embedding_counts_are_the_published_ones(name: str) -> None:
    assert preset(name).cost(1).non_embedding == NON_EMBEDDING[name]


def test_every_preset_has_a_test_of_its_size() -> None:
    sized = {*LADDER, *PUBLISHED, *PUBLISHED_PAIRS, *RELEASED, *STATED, *WITHOUT_TABLES, *RELATIVE, *ROUND}
    sized |= {f"albert-{size}" for size in ALBERTS}
    sized |= {f"electra-{size}{half}" for size in ("small", "base", "large") for half in ("", "-generator")}
    assert set(PRESETS) == sized


def test_no_two_presets_have_one_name() -> None:
    kinds = [DECODERS, HISTORY, MODERN, EXPERTS, STATE_SPACE, ENCODERS, ENCODER_DECODERS]
    assert len(PRESETS) == sum(map(len, kinds))


@pytest.mark.parametrize("name", ["deepseek-v3", "jamba-52b", "gemma3-1b", "albert-xlarge", "electra-base"])
def test_counts_are_those_of_the_built_model(name: str) -> None:
    model = preset(name)
    built = nnx.eval_shape(lambda: model.build(rngs=nnx.Rngs(params=0)))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(param.split(built)[1])) == model.cost(1).params


@pytest.mark.parametrize("name", LADDER)
def test_the_ladder_is_as_large_as_it_says(name: str) -> None:
    stated = 1e6 * float(name.removeprefix("ladder-").removesuffix("m"))
    assert preset(name).cost(1).non_embedding == pytest.approx(stated, rel=0.12)


def test_the_ladder_goes_up_with_one_shape() -> None:
    rungs = [DECODERS[name]() for name in LADDER]
    sizes = [rung.cost(1).non_embedding for rung in rungs]
    assert sizes == sorted(sizes) and sizes[0] < 0.35e6
    assert {rung.width / rung.layers for rung in rungs} == {32}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_value(name: str) -> None:
    """It survives JSON, takes another vocabulary, and its cost takes no time however large it is."""
    start = time.perf_counter()
    model = preset(name)
    assert loads(dumps(model)) == model
    change = model.cost(2048).params - replace(model, dict.fromkeys(vocabularies(model), 100)).cost(2048).params
    assert change == (model.vocab - 100) * numbers_of_a_token(model)
    assert time.perf_counter() - start < 1


def vocabularies(model: Model) -> list[str]:
    """Paths to every part that has one."""
    if isinstance(model, EncoderDecoder):
        return ["encoder.vocab", "decoder.vocab"]
    if isinstance(model, Electra):
        return ["generator.body.vocab", "discriminator.body.vocab"]
    return ["body.vocab"] if isinstance(model, Headed) else ["vocab"]


def numbers_of_a_token(model: Any) -> int:
    """Of its rows in all tables."""
    if isinstance(model, Electra):
        return numbers_of_a_token(model.generator)
    if isinstance(model, Headed):
        return model.body.table_width + (model.classes == model.vocab)  # a masked LM's bias
    decoder: Decoder = model.decoder if isinstance(model, EncoderDecoder) else model
    return (1 if decoder.tied else 2) * decoder.width + decoder.head_bias


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no preset 'pythia-70M'; did you mean 'pythia-70m'"):
        preset("pythia-70M")


def test_a_gated_layer_of_no_stated_width_costs_what_an_ungated_one_would() -> None:
    block = llama_style(768, 12, heads=12).block
    assert not isinstance(block, tuple) and block.ff is not None
    assert block.ff.cost(768, 1).params == 2 * 4 * 768 * 768
