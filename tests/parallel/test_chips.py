"""Devices as JAX spells them, and the figures of their data sheets."""

import jax
import pytest

from camctrl_jax.parallel.chips import CHIPS, chip_of


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5e", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("TPU v6e", "v6e"),
    ],
)
def test_a_kind_of_device_is_known_by_name(kind, name):
    assert chip_of(kind) is CHIPS[name]
    assert CHIPS[name].name == name


@pytest.mark.parametrize("kind", ["cpu", "", "TPU v9", "NVIDIA H100 PCIe", "NVIDIA GeForce RTX 4090"])
def test_what_is_not_in_the_table_is_nobody(kind):
    assert chip_of(kind) is None


def test_the_device_of_this_test_is_nobody():
    assert chip_of(jax.devices("cpu")[0].device_kind) is None


def test_arithmetic_outruns_memory_and_memory_outruns_the_network():
    for chip in CHIPS.values():
        assert 100 < chip.flops / chip.memory_rate < 1000
        assert chip.network_rate < chip.link_rate < chip.memory_rate
