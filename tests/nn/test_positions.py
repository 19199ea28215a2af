"""Positions against formulas and published values, and what makes them relative."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.config import ConfigError
from lm.nn import (
    ALiBi,
    DynamicNTK,
    Learned,
    LinearScaling,
    Llama3Scaling,
    LongRoPE,
    NTKScaling,
    ProportionalScaling,
    RelativePosition,
    RoPE,
    Sinusoidal,
    T5Bias,
    YaRN,
    mha,
)

BASE, P = 10000.0, 16


def plain(width: int = P, base: float = BASE) -> np.ndarray:
    return np.array([base ** (-2 * i / width) for i in range(width // 2)])


class TestFrequencies:
    def test_plain_and_partial(self) -> None:
        np.testing.assert_allclose(RoPE().frequencies(P), plain(), rtol=1e-12)
        np.testing.assert_allclose(RoPE(fraction=0.25, base=500.0).frequencies(32), plain(8, 500.0), rtol=1e-12)

    def test_linear(self) -> None:
        np.testing.assert_allclose(RoPE(scaling=LinearScaling(factor=4.0)).frequencies(P), plain() / 4, rtol=1e-12)

    def test_ntk_keeps_the_fastest_and_divides_the_slowest(self) -> None:
        found = RoPE(scaling=NTKScaling(factor=4.0)).frequencies(P)
        i = np.arange(P // 2)
        np.testing.assert_allclose(found, plain() * 4.0 ** (-2 * i / (P - 2)), rtol=1e-12)
        assert found[0] == 1 and found[-1] == pytest.approx(plain()[-1] / 4)

    def test_llama3_by_wavelength(self) -> None:
        spec = Llama3Scaling(factor=8.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_length=8192)
        expected = []
        for f in plain(128, 500000.0):  # the released code, written by wavelength
            wavelength = 2 * math.pi / f
            if wavelength < 8192 / 4.0:
                expected.append(f)
            elif wavelength > 8192 / 1.0:
                expected.append(f / 8.0)
            else:
                smooth = (8192 / wavelength - 1.0) / (4.0 - 1.0)
                expected.append((1 - smooth) * f / 8.0 + smooth * f)
        np.testing.assert_allclose(RoPE(base=500000.0, scaling=spec).frequencies(128), expected, rtol=1e-12)
        assert (
            expected[0] == 1 and len({round(e / f, 6) for e, f in zip(expected, plain(128, 500000.0), strict=True)}) > 3
        )

    def test_yarn_by_turns(self) -> None:
        spec = YaRN(factor=16.0, original_length=4096)
        found = RoPE(scaling=spec).frequencies(128)
        turns = 4096 * plain(128) / (2 * math.pi)  # how often each pair turns in the original length
        np.testing.assert_allclose(found[turns > 2 * spec.beta_fast], plain(128)[turns > 2 * spec.beta_fast])
        np.testing.assert_allclose(found[turns < spec.beta_slow / 2], plain(128)[turns < spec.beta_slow / 2] / 16)
        # between them the share of the plain frequency falls in equal steps (paper, equation 13, over the index)
        share = (found / plain(128) - 1 / 16) / (1 - 1 / 16)
        low, high = (128 * math.log(4096 / (b * 2 * math.pi)) / (2 * math.log(BASE)) for b in (32.0, 1.0))
        low, high = math.floor(low), math.ceil(high)
        np.testing.assert_allclose(share, [min(max((high - i) / (high - low), 0), 1) for i in range(64)], atol=1e-9)
        assert spec.magnitude() == pytest.approx(0.1 * math.log(16) + 1)
        assert YaRN(factor=2.0, original_length=9, attention_factor=3.0).magnitude() == 3.0

    def test_yarn_of_two_scales(self) -> None:
        spec = YaRN(factor=16.0, original_length=4096, mscale=0.7, mscale_all_dim=1.2)
        over, under = (0.1 * s * math.log(16) + 1 for s in (0.7, 1.2))
        assert spec.magnitude() == pytest.approx(over / under)
        layer = RoPE(scaling=spec).build(2, P, rngs=nnx.Rngs(0))
        assert layer.scale(P) == pytest.approx(under**2 / 4)  # of scores, for those parts of a head that aren't turned
        assert RoPE(scaling=YaRN(factor=16.0, original_length=9)).build(2, P, rngs=nnx.Rngs(0)).scale(P) == 1 / 4

    def test_yarn_between_pairs(self) -> None:
        spec = YaRN(factor=16.0, original_length=4096, truncate=False)
        share = (RoPE(scaling=spec).frequencies(128) / plain(128) - 1 / 16) / (1 - 1 / 16)
        low, high = (128 * math.log(4096 / (b * 2 * math.pi)) / (2 * math.log(BASE)) for b in (32.0, 1.0))
        np.testing.assert_allclose(share, [min(max((high - i) / (high - low), 0), 1) for i in range(64)], atol=1e-9)

    def test_proportional_turns_the_fastest_pairs_of_the_whole_width(self) -> None:
        found = RoPE(scaling=ProportionalScaling(turned=0.4, factor=2.0)).frequencies(P)
        np.testing.assert_allclose(found, [*(plain()[:3] / 2), 0, 0, 0, 0, 0], rtol=1e-12)

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda: RoPE(scaling=DynamicNTK(factor=2.0, original_length=4)).frequencies(2), "LinearScaling"),
            (lambda: DynamicNTK(factor=2.0, original_length=0), "original_length=0 must be above 0"),
            (lambda: YaRN(factor=2.0, original_length=4, attention_factor=0.0), "attention_factor=0.0 must be above"),
            (lambda: LONG.build(1, 4, rngs=nnx.Rngs(0)), "8 factors, but the head has 2 turned pairs"),
            (lambda: LongRoPE(short=(1.0,), long=(), factor=1.0, original_length=4), "one of each for every"),
            (lambda: LongRoPE(short=(1.0,), long=(0.0,), factor=1.0, original_length=4), "positive factors"),
            (lambda: ProportionalScaling(turned=0.0), "turned=0.0 must be above 0"),
            (lambda: mha(4, head_width=3).cost(8, 1), "even part of the head's width"),
            (lambda: RoPE(fraction=0.0), "position=None"),
            (lambda: LinearScaling(factor=0.0), "factor=0.0 must be above 0"),
            (lambda: RoPE(scaling=NTKScaling(factor=2.0)).frequencies(2), "LinearScaling"),
            (lambda: Llama3Scaling(high_frequency_factor=1.0), "must be larger than low"),
            (lambda: T5Bias(buckets=7), "must be even"),
            (lambda: T5Bias(buckets=32, max_distance=16), "must exceed the 16 exact buckets"),
            (lambda: ALiBi(max_exponent=0.0), "must be above 0"),
            (lambda: Learned(length=0), "at least 1"),
            (lambda: Sinusoidal().cost(7), "even width, got 7"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, make: Any, said: str) -> None:
        with pytest.raises(ConfigError) as error:
            make()
        assert said in str(error.value)


def rotate(spec: RoPE, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    layer = spec.build(x.shape[2], x.shape[3], rngs=nnx.Rngs(0))
    return np.asarray(layer.rotate(jnp.asarray(x, jnp.float32), jnp.asarray(positions)))


class TestRotation:
    def test_is_multiplication_by_a_complex_number(self) -> None:
        x, positions = np.random.default_rng(0).normal(size=(2, 5, 3, P)), np.arange(10).reshape(2, 5)
        z = (x[..., :4] + 1j * x[..., 4:8]) * np.exp(1j * positions[:, :, None, None] * plain(8))
        expected = np.concatenate([z.real, z.imag, x[..., 8:]], axis=-1)
        np.testing.assert_allclose(rotate(RoPE(fraction=0.5), x, positions), expected, atol=1e-5)

    def test_yarn_scales_what_it_turns(self) -> None:
        x, zero = np.ones((1, 1, 1, P)), np.zeros((1, 1), int)
        spec = RoPE(fraction=0.5, scaling=YaRN(factor=4.0, original_length=8))
        expected = [0.1 * math.log(4) + 1] * 8 + [1] * 8
        np.testing.assert_allclose(rotate(spec, x, zero)[0, 0, 0], expected, rtol=1e-6)

    @pytest.mark.parametrize("scaling", [None, NTKScaling(factor=3.0), YaRN(factor=4.0, original_length=8)])
    def test_products_depend_on_the_distance_alone(self, scaling: Any) -> None:
        rng, spec = np.random.default_rng(1), RoPE(base=100.0, scaling=scaling)
        q, k = rng.normal(size=(2, 1, 1, 1, P))
        turn = [(rotate(spec, q, np.array([[i]])), rotate(spec, k, np.array([[i]]))) for i in range(0, 60, 5)]
        products = np.array([[(a * b).sum() for _, b in turn] for a, _ in turn])
        for offset in range(-5, 6):
            diagonal = np.diagonal(products, offset)
            np.testing.assert_allclose(diagonal, diagonal[0], atol=2e-4)
        assert np.ptp(products[0]) > 0.5


SHORT, FACTORS = (1.0, 1.1, 1.2, 1.5, 2.0, 2.2, 2.5, 3.0), (1.0, 1.5, 2.0, 4.0, 8.0, 12.0, 20.0, 30.0)
LONG = RoPE(scaling=LongRoPE(short=SHORT, long=FACTORS, factor=4.0, original_length=8))


class TestByLength:
    """Two rows, one within the original length of 8 and one beyond it: each is turned by its own frequencies."""

    AT = np.stack([np.minimum(np.arange(16), 7), np.arange(16)])  # positions up to 7, and up to 15

    def assert_turned(self, spec: RoPE, frequencies: list[np.ndarray], magnitude: float = 1.0) -> None:
        x = np.random.default_rng(0).normal(size=(2, 16, 3, P))
        angle = self.AT[:, :, None, None] * np.stack(frequencies)[:, None, None]
        z = magnitude * (x[..., :8] + 1j * x[..., 8:]) * np.exp(1j * angle)
        expected = np.concatenate([z.real, z.imag], axis=-1)
        np.testing.assert_allclose(rotate(spec, x, self.AT), expected, atol=2e-5)

    def test_dynamic_ntk(self) -> None:
        spec = RoPE(scaling=DynamicNTK(factor=3.0, original_length=8))
        stretched = RoPE(scaling=NTKScaling(factor=3.0 * 16 / 8 - 2.0)).frequencies(P)
        self.assert_turned(spec, [plain(), stretched])

    def test_longrope(self) -> None:
        magnitude = math.sqrt(1 + math.log(4) / math.log(8))
        self.assert_turned(LONG, [plain() / SHORT, plain() / FACTORS], magnitude)
        given = LongRoPE(short=SHORT, long=FACTORS, factor=0.5, original_length=16, attention_factor=1.5)
        self.assert_turned(RoPE(scaling=given), [plain() / SHORT] * 2, 1.5)
        assert LongRoPE(short=SHORT, long=FACTORS, factor=1.0, original_length=8).magnitude() == 1


SPECS: dict[str, RelativePosition] = {
    "rope": RoPE(base=50.0, fraction=0.5),
    "alibi": ALiBi(),
    "t5": T5Bias(buckets=8, max_distance=16),
}


@pytest.mark.parametrize("name", SPECS)
def test_attention_is_the_same_wherever_a_document_starts(name: str) -> None:
    layer = mha(2, position=SPECS[name]).build(8, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 6, 8)) * 3
    at = jnp.arange(6)[None]
    run = nnx.jit(lambda layer, at: layer(x, at, jnp.ones_like(at))[0])
    np.testing.assert_allclose(run(layer, at), run(layer, at + 9), atol=1e-4)
    assert np.abs(run(layer, at) - run(layer, at * 2)).max() > 1e-3


class TestALiBi:
    def test_published_slopes(self) -> None:
        assert ALiBi().slopes(8) == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
        # the authors' get_slopes(12): those of 8 heads, then every other one of 16 heads
        expected = [2.0**-i for i in range(1, 9)] + [2 ** (-i / 2) for i in (1, 3, 5, 7)]
        np.testing.assert_allclose(ALiBi().slopes(12), expected)
        assert [len(ALiBi().slopes(n)) for n in range(1, 20)] == list(range(1, 20))

    def test_bias_is_slope_times_distance(self) -> None:
        layer = ALiBi(max_exponent=2.0).build(2, 4, rngs=nnx.Rngs(0))
        bias = layer.bias(jnp.array([[3, 4]]), jnp.array([[1, 4, 6]]))
        distance = np.array([[2, 1, 3], [3, 0, 2]])
        np.testing.assert_allclose(bias[0], [-0.5 * distance, -0.25 * distance])


def t5_bucket(offset: int, buckets: int, farthest: int, both: bool) -> int:
    """Raffel et al. 2020, appendix of the released code, with rational numbers instead of logarithms."""
    first = 0
    if both:
        buckets //= 2
        first = buckets if offset > 0 else 0
        distance = abs(offset)
    else:
        distance = max(-offset, 0)
    exact = buckets // 2
    if distance < exact:
        return first + distance
    far, steps = exact, buckets - exact
    while far < buckets - 1 and Fraction(distance, exact) ** steps >= Fraction(farthest, exact) ** (far - exact + 1):
        far += 1
    return first + far


@pytest.mark.parametrize(
    ("buckets", "farthest", "both"),
    [(32, 128, False), (32, 128, True), (8, 64, False), (8, 10, False), (4, 9, True), (16, 512, False)],
)
def test_t5_buckets(buckets: int, farthest: int, both: bool) -> None:
    offsets = np.arange(-600, 601)
    expected = [t5_bucket(int(o), buckets, farthest, both) for o in offsets]
    found = T5Bias(buckets=buckets, max_distance=farthest, bidirectional=both).bucket(jnp.asarray(offsets))
    np.testing.assert_array_equal(found, expected)
    assert set(expected) == set(range(buckets)) - ({buckets // 2} if both else set())


def test_t5_bias_looks_its_bucket_up() -> None:
    spec = T5Bias(buckets=8, max_distance=16)
    layer = spec.build(3, 4, rngs=nnx.Rngs(0))
    table = np.asarray(layer.table[...])
    bias = np.asarray(layer.bias(jnp.array([[20, 4]]), jnp.array([[0, 3, 4]])))
    assert bias.shape == (1, 3, 2, 3)
    for i, q in enumerate([20, 4]):
        for j, k in enumerate([0, 3, 4]):
            np.testing.assert_array_equal(bias[0, :, i, j], table[t5_bucket(k - q, 8, 16, False)])


class TestAbsolute:
    def test_sinusoidal(self) -> None:
        positions = np.array([[0, 1, 7, 500]])
        found = Sinusoidal(base=100.0, scale=0.5).build(8, rngs=nnx.Rngs(0))(jnp.asarray(positions))
        angle = positions[0][:, None] / 100.0 ** (np.arange(0, 8, 2) / 8)
        expected = 0.5 * np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
        np.testing.assert_allclose(found[0], expected, atol=2e-5)

    def test_a_position_that_was_not_learned_is_loud(self) -> None:
        layer = Learned(length=4).build(8, rngs=nnx.Rngs(0))
        found = layer(jnp.array([[0, 3, 4]]))
        np.testing.assert_array_equal(found[0, :2], layer.table[...][jnp.array([0, 3])])
        assert np.isnan(found[0, 2]).all()
