"""Swap-outs that nobody waits for land in order: of two into the same bytes, the later wins."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipellm.bench.driver_table import D2H, H2D
from tests.runtime.planned import KIB, MIB, PlannedGpu

ARENA = 5 * MIB
STREAMS = 3


@pytest.mark.parametrize("streams", [1, 2], ids=["one stream", "two streams and an event"])
def test_the_later_of_two_swap_outs_into_the_same_bytes_wins(streams: int) -> None:
    gpu = PlannedGpu()
    host, first, second = gpu.host_alloc(ARENA), gpu.malloc(ARENA), gpu.malloc(64)
    ctypes.memset(first, 1, ARENA)
    ctypes.memset(second, 2, 64)
    one = gpu.stream()
    other = one if streams == 1 else gpu.stream()
    event = gpu.event()
    for round_ in range(60):
        # A few bytes are opened sooner than the long message that they must come after.
        at = ARENA - 64 * (1 + round_ % 3)
        gpu.copy(D2H, host, first, ARENA, asynchronous=True, stream=one)
        gpu.call("event_record", event, one)
        gpu.call("stream_wait_event", 0, other, event)
        gpu.copy(D2H, host + at, second, 64, asynchronous=True, stream=other)
        gpu.synchronize()
        assert ctypes.string_at(host + at, 64) == b"\2" * 64, round_
        assert ctypes.string_at(host, at) == b"\1" * at, round_


def test_a_swap_out_brings_home_what_was_there_before_its_stream_overwrote_it() -> None:
    nbytes = 20 * MIB  # more messages than the bounce buffer has slots
    gpu = PlannedGpu()
    host, device = gpu.host_alloc(nbytes), gpu.malloc(nbytes)
    for round_ in range(1, 6):
        ctypes.memset(device, round_, nbytes)
        gpu.copy(D2H, host, device, nbytes, asynchronous=True)
        gpu.call("fill", 0, 0, device, 100 + round_, nbytes)
        gpu.synchronize()
        assert ctypes.string_at(host, nbytes) == bytes([round_]) * nbytes
        assert ctypes.string_at(device, nbytes) == bytes([100 + round_]) * nbytes


places = st.integers(0, ARENA // (512 * KIB) - 1).map(lambda block: block * 512 * KIB)
lengths = st.sampled_from([100, 200 * KIB, MIB, 2 * MIB + 5])
operations = st.one_of(
    st.tuples(
        st.just("copy"), st.sampled_from([H2D, D2H, D2H]), places, places, lengths,
        st.integers(0, STREAMS - 1), st.booleans(),
    ),
    # A few bytes of another kind, onto the end of what is just landing.
    st.tuples(st.just("swap-outs"), places, places, st.integers(1, 4), st.integers(0, STREAMS - 1)),
    st.tuples(st.just("kernel"), places, st.integers(0, 255), st.integers(0, STREAMS - 1)),
    st.tuples(st.just("host write"), places, st.integers(0, 255)),
    st.tuples(st.just("settle")),
)  # fmt: skip


@dataclass
class Program:
    """Copies between ranges that overlap, on streams that wait for each other."""

    gpu: PlannedGpu
    last_stream: int = 0
    host_model: bytearray = field(default_factory=lambda: bytearray(ARENA))
    device_model: bytearray = field(default_factory=lambda: bytearray(ARENA))

    def __post_init__(self) -> None:
        self.host, self.device = self.gpu.host_alloc(ARENA), self.gpu.malloc(ARENA)
        self.streams = [0, *(self.gpu.stream() for _ in range(STREAMS - 1))]
        for address in (self.host, self.device):
            ctypes.memset(address, 0, ARENA)
        for block in range(ARENA // (512 * KIB)):
            self.run(("kernel", block * 512 * KIB, block + 1, 0))

    def run(self, operation: tuple[object, ...]) -> None:
        match operation:
            case ("copy", int(direction), int(host), int(device), int(n), int(s), bool(a)):
                self.copy(direction, host, device, min(n, ARENA - max(host, device)), s, a)
            case ("swap-outs", int(host), int(device), int(count), int(s)):
                n = min(2 * MIB, ARENA - max(host, device))
                for _ in range(count):
                    self.copy(D2H, host, device, n, s, True)
                    self.copy(D2H, host + n - 100, ARENA - device - 100, 100, s, True)
            case ("kernel", int(at), int(value), int(s)):
                self.follow(s)
                self.gpu.call("launch", 0, self.streams[s])
                ctypes.memset(self.device + at, value, 512 * KIB)
                self.device_model[at : at + 512 * KIB] = bytes([value]) * (512 * KIB)
            case ("host write", int(at), int(value)):
                self.look()
                ctypes.memset(self.host + at, value, 512 * KIB)
                self.host_model[at : at + 512 * KIB] = bytes([value]) * (512 * KIB)
            case ("settle",):
                self.gpu.settle()

    def follow(self, stream: int) -> None:
        """What comes next on `stream` comes after all that was asked for before."""
        if stream != self.last_stream:
            event = self.gpu.event()
            self.gpu.call("event_record", event, self.streams[self.last_stream])
            self.gpu.call("stream_wait_event", 0, self.streams[stream], event)
            self.gpu.call("event_destroy", event)
        self.last_stream = stream

    def copy(self, direction: int, host: int, device: int, n: int, stream: int, a: bool) -> None:
        self.follow(stream)
        pair = (self.device + device, self.host + host)
        destination, source = pair if direction == H2D else reversed(pair)
        self.gpu.copy(
            direction, destination, source, n, asynchronous=a, stream=self.streams[stream]
        )
        if direction == H2D:
            self.device_model[device : device + n] = self.host_model[host : host + n]
        else:
            self.host_model[host : host + n] = self.device_model[device : device + n]

    def look(self) -> None:
        self.gpu.synchronize()
        assert ctypes.string_at(self.host, ARENA) == self.host_model
        assert ctypes.string_at(self.device, ARENA) == self.device_model


@settings(max_examples=40, deadline=None)
@given(program=st.lists(operations, max_size=25))
def test_copies_between_overlapping_ranges_take_effect_in_their_order(
    program: list[tuple[object, ...]],
) -> None:
    running = Program(PlannedGpu())
    for operation in program:
        running.run(operation)
    running.look()
    assert running.gpu.counted["auth_failures"] == 0
    running.gpu.close()
