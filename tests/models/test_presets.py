"""Presets have the parameter counts of the published models, and the ladder the sizes in its names."""

import time

import pytest

from lm.config import ConfigError, dumps, loads, replace
from lm.models import EncoderDecoder
from lm.models.presets import DECODERS, ENCODER_DECODERS, PRESETS, llama_style, preset

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

LADDER = [name for name in PRESETS if name.startswith("ladder-")]


@pytest.mark.parametrize("name", [*PUBLISHED, *PUBLISHED_PAIRS])
def test_counts_are_the_published_ones(name: str) -> None:
    assert preset(name).cost(1).params == {**PUBLISHED, **PUBLISHED_PAIRS}[name]


@pytest.mark.parametrize("name", ROUND)
def test_counts_are_about_the_published_round_ones(name: str) -> None:
    assert preset(name).cost(1).params == pytest.approx(ROUND[name], rel=0.035)


@pytest.mark.parametrize("name", NON_EMBEDDING)
def test_non_embedding_counts_are_the_published_ones(name: str) -> None:
    assert preset(name).cost(1).non_embedding == NON_EMBEDDING[name]


def test_every_preset_has_a_test_of_its_size() -> None:
    assert set(DECODERS) == set(PUBLISHED) | set(LADDER)
    assert set(ENCODER_DECODERS) == set(PUBLISHED_PAIRS) | set(ROUND)
    assert set(PRESETS) == set(DECODERS) | set(ENCODER_DECODERS)


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
    pair = isinstance(model, EncoderDecoder)
    tables = 1 if (model.decoder if pair else model).tied else 2
    changed = {"encoder.vocab": 100, "decoder.vocab": 100} if pair else {"vocab": 100}
    change = model.cost(2048).params - replace(model, changed).cost(2048).params
    assert change == tables * (model.vocab - 100) * model.width
    assert time.perf_counter() - start < 1


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no preset 'pythia-70M'; did you mean 'pythia-70m'"):
        preset("pythia-70M")


def test_a_gated_layer_of_no_stated_width_costs_what_an_ungated_one_would() -> None:
    block = llama_style(768, 12, heads=12).block
    assert not isinstance(block, tuple) and block.ff is not None
    assert block.ff.cost(768, 1).params == 2 * 4 * 768 * 768
