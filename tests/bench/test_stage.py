"""Every byte of every copy is checked, and a wrong one does not pass."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipellm import _native
from pipellm.bench.stage import Stage, WrongBytesError
from pipellm.gpu.emulated.profile import load
from pipellm.gpu.roofline import Roofline
from pipellm.runtime.opening import open_under
from pipellm.runtime.policy import POLICIES, Policy
from pipellm.runtime.statistics import Statistics
from pipellm.transfers import Direction
from pipellm.workloads.events import (
    Compute,
    Copy,
    Done,
    Event,
    Idle,
    StreamWait,
    Synchronize,
    Write,
)

MIB = 1 << 20
BUFFERS = [(1 << 44) + i * 4 * MIB for i in range(6)]
DEVICE = 1 << 45


def everything() -> Iterator[Event]:
    """Swaps both ways, small copies, kernels and writes; the same buffers over and over."""
    while True:
        for i, address in enumerate(BUFFERS):
            if i % 3 == 2:
                yield Copy(Direction.D2H, address, MIB + 5, DEVICE, stream=1)
            yield Copy(Direction.H2D, address, MIB + 5, DEVICE, stream=1)
            yield StreamWait(0, 1)
            yield Compute(1e6, 1e6, kernels=2)
            yield Copy(Direction.H2D, 1 << 40, 64, DEVICE, blocking=True, pinned=False)
        yield Idle(1e-5)
        yield Synchronize()
        yield Done(3)


def rewritten() -> Iterator[Event]:
    """Buffers that the program changes now and then, at a time when they lie sealed ahead."""
    for number in range(1 << 30):
        if number % 5 == 4:
            yield Write(BUFFERS[number % 3], MIB)
        for address in BUFFERS:
            yield Copy(Direction.H2D, address, MIB, DEVICE)
            yield Synchronize()
        yield Done()


class Play:
    """A workload on a stage of its own."""

    def __init__(self, policy: str, events: Iterator[Event]) -> None:
        profile = load("fast")
        self.driver: _native.Driver = open_under(Policy.named(policy), profile, 1, Statistics(None))
        self.stage = Stage(
            self.driver, events, Roofline.of(profile, confidential=True), scene_bytes=24 * MIB
        )

    def rounds(self, count: int) -> int:
        checked = 0
        for _ in range(count):
            scene = self.stage.prepare(1)
            assert self.stage.play(scene) >= 0
            checked += self.stage.check(scene)
        return checked

    def end(self) -> None:
        self.driver.context(0).close()
        self.driver.stop_threads()


@pytest.mark.parametrize("policy", POLICIES)
def test_what_arrives_is_what_was_sent(policy: str) -> None:
    play = Play(policy, everything())
    # Two of the swap-outs are checked on the host as well.
    assert play.rounds(8) == 8 * (8 * (MIB + 5) + 6 * 64)
    play.end()


def test_what_changed_since_it_was_sealed_arrives_as_it_is_now() -> None:
    play = Play("pipelined", rewritten())
    play.rounds(15)
    play.end()


def test_a_stale_byte_does_not_pass() -> None:
    play = Play("pipelined", rewritten())
    play.rounds(3)
    play.driver.context(0).go_blind(bytes=True)
    with pytest.raises(WrongBytesError, match="1,048,576 bytes to device memory"):
        play.rounds(12)
    play.end()


def test_a_pattern_is_told_from_any_other() -> None:
    memory = _native.Replay(Play("off", iter(())).driver, charged=False).host_memory(MIB, False)
    _native.fill_pattern(memory, MIB - 3, 7)
    assert _native.holds_pattern(memory, MIB - 3, 7)
    assert not _native.holds_pattern(memory, MIB - 3, 8)
    assert not _native.holds_pattern(memory, MIB, 7)
