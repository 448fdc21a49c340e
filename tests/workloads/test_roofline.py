"""A kernel takes as long as its arithmetic or its memory, whichever is slower."""

from __future__ import annotations

import pytest

from pipellm.gpu.emulated.profile import Chip, load, names
from pipellm.gpu.roofline import Roofline
from pipellm.workloads.events import Compute

ROOF = Roofline(Chip(flops_per_second=100.0, bytes_per_second=10.0), launch_s=0.5)


def test_arithmetic_or_memory_limits_and_launches_are_the_hosts() -> None:
    assert ROOF.device_seconds(Compute(flops=200, nbytes=10)) == 2
    assert ROOF.device_seconds(Compute(flops=100, nbytes=40)) == 4
    assert ROOF.host_seconds(Compute(flops=0, nbytes=0, kernels=3)) == 1.5


def test_without_a_chip_nothing_takes_time() -> None:
    assert Roofline.of(load("fast"), confidential=True).device_seconds(Compute(1e15, 1e15)) == 0


@pytest.mark.parametrize("name", [name for name in names() if name != "fast"])
def test_reading_a_tenth_of_memory_takes_a_profile_some_milliseconds(name: str) -> None:
    profile = load(name)
    seconds = Roofline.of(profile, confidential=True).device_seconds(
        Compute(flops=0, nbytes=profile.memory_bytes / 10)
    )
    assert 1e-3 < seconds < 10e-3
