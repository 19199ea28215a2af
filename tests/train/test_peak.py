"""Peak arithmetic: the right entry of the table, and a sensible measurement."""

import dataclasses

import jax
import pytest

from lm.train import peak


@dataclasses.dataclass
class Device:
    device_kind: str
    platform: str = "gpu"
    process_index: int = 0


@pytest.mark.parametrize(
    ("kind", "tera"),
    [
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5e", 197),
        ("TPU v5", 459),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
        ("TPU7x", 1153.5),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H200", 989.4),
        ("NVIDIA GB200", 2500),
        ("NVIDIA B200", 2250),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("Tesla V100-SXM2-16GB", 125),
        ("Tesla V100-PCIE-16GB", 112),
        ("Tesla T4", 65),
        ("NVIDIA A10", 125),
    ],
)
def test_published(kind, tera):
    assert peak.published_flops(kind) == tera * 1e12
    assert peak.peak_flops([Device(kind)] * 4) == (4 * tera * 1e12, "published bf16")


def test_an_unknown_accelerator_is_measured(monkeypatch):
    assert peak.published_flops("NVIDIA L400") is None
    monkeypatch.setattr(peak, "_measured", lambda platform, dtype: {("gpu", "bfloat16"): 7.0}[platform, dtype])
    assert peak.peak_flops([Device("Some GPU")] * 2) == (14.0, "measured bf16 matmul")


def test_cpu_is_measured_once_and_virtual_devices_share_it():
    flops, how = peak.peak_flops()
    assert how == "measured f32 matmul" and 1e8 < flops < 1e14
    assert peak.peak_flops(jax.devices()[:1]) == (flops, how)
