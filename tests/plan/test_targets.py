"""What a machine's name stands for."""

import pytest

from lm.config import ConfigError
from lm.plan import CHIPS, target
from lm.train.peak import published_flops


@pytest.mark.parametrize(
    ("name", "kind", "devices", "chips", "topology"),
    [
        ("v5e-16", "TPU v5 lite", 16, 16, "4x4"),  # v5e counts chips
        ("v5p-256", "TPU v5", 128, 128, "4x4x8"),  # v5p counts TensorCores
        ("v5p:4x8x8", "TPU v5", 256, 256, "4x8x8"),
        ("v4-8", "TPU v4", 4, 4, "2x2x1"),
        ("V6E-64", "TPU v6 lite", 64, 64, "8x8"),
        ("tpu7x-8", "TPU7x", 16, 8, "2x2x2"),  # two devices a chip
        ("h100x8", "NVIDIA H100 80GB HBM3", 8, 8, ""),
        ("b200", "NVIDIA B200", 1, 1, ""),
    ],
)
def test_a_name_is_a_machine(name, kind, devices, chips, topology):
    found = target(name)
    assert (found.chip.kind, found.devices, found.chips, found.topology) == (kind, devices, chips, topology)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("h10x8", "did you mean 'h100'"),
        ("h100-8", "h100x8"),
        ("v5e-17", "there is no slice 'v5e-17'"),
        ("v5p-7", "there is no slice 'v5p-7'"),
        ("v5p:4x4", "3 axes"),
        ("v5ex4", "a size or a topology"),
        ("v5e", "there is no slice"),
        ("8 of them", "no machine is known"),
    ],
)
def test_what_is_no_machine_is_refused(name, says):
    with pytest.raises(ConfigError, match=says):
        target(name)


def test_every_chip_has_a_published_peak():
    assert all(published_flops(chip.kind) == chip.flops > 0 for chip in CHIPS.values())
