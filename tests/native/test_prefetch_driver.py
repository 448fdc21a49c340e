"""The prefetching layer: what a program sees is what it sees without it, and fewer copies cross."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from pipellm.bench.driver_table import (
    CONTEXT_LOST,
    D2H,
    H2D,
    NOT_PERMITTED,
    NOT_READY,
    OK,
    OUT_OF_MEMORY,
    DriverError,
    Release,
)
from pipellm.prefetch import What
from pipellm.trace import tape
from pipellm.workloads.events import Copy, Event, StreamWait, Synchronize

from .gpu import Gpu
from .prefetching import BUDGET, MIB, TRANSFER, PrefetchingGpu

SIZE = 300_000


@pytest.fixture
def gpu() -> Iterator[PrefetchingGpu]:
    gpu = PrefetchingGpu()
    gpu.warm_up()
    yield gpu
    gpu.layer.stop()


def filled(gpu: PrefetchingGpu, value: int, nbytes: int = SIZE) -> int:
    host = gpu.host_alloc(nbytes)
    ctypes.memset(host, value, nbytes)
    return host


def copy_and_wait(gpu: PrefetchingGpu, device: int, host: int) -> None:
    gpu.copy(H2D, device, host, SIZE, asynchronous=True)
    gpu.synchronize()


def content(address: int, nbytes: int = SIZE) -> bytes:
    return ctypes.string_at(address, nbytes)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_was_prefetched_does_not_cross_again(gpu: PrefetchingGpu, asynchronous: bool) -> None:
    host, device = filled(gpu, 5), gpu.malloc(SIZE)
    gpu.prefetch((host, SIZE))
    with gpu.crossing() as crossed:
        gpu.copy(H2D, device, host, SIZE, asynchronous=asynchronous)
        gpu.synchronize()
    assert crossed == [0]
    assert content(device) == bytes([5]) * SIZE


def test_a_part_of_what_was_prefetched_is_found(gpu: PrefetchingGpu) -> None:
    host, device = filled(gpu, 0), gpu.malloc(SIZE)
    pattern = bytes(i % 251 for i in range(SIZE))
    ctypes.memmove(host, pattern, SIZE)
    gpu.prefetch((host, SIZE))
    with gpu.crossing() as crossed:
        for start, nbytes in ((0, 10), (70_001, 130_000), (SIZE - 1, 1)):
            gpu.copy(H2D, device + start, host + start, nbytes, asynchronous=True)
            gpu.synchronize()
            assert content(device + start, nbytes) == pattern[start : start + nbytes]
    assert crossed == [0]


def test_a_request_that_was_prefetched_in_part_brings_the_rest(gpu: PrefetchingGpu) -> None:
    host, device = filled(gpu, 7), gpu.malloc(SIZE)
    gpu.prefetch((host + 50_000, 100_000), (host + 200_000, 50_000))
    gpu.copy(H2D, device, host, SIZE, asynchronous=True)
    gpu.synchronize()
    assert content(device) == bytes([7]) * SIZE
    assert (What.HIT, host, SIZE) in gpu.news()


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("nbytes", [20_000, SIZE])
def test_bytes_that_changed_since_are_brought_anew(
    gpu: PrefetchingGpu, asynchronous: bool, nbytes: int
) -> None:
    host, device = filled(gpu, 1, nbytes), gpu.malloc(nbytes)
    gpu.prefetch((host, nbytes))
    ctypes.memset(host + nbytes // 2, 2, 1)
    gpu.copy(H2D, device, host, nbytes, asynchronous=asynchronous)
    gpu.synchronize()
    assert content(device, nbytes) == content(host, nbytes)
    assert content(device + nbytes // 2, 1) == bytes([2])
    told = [what for what, _, _ in gpu.news()]
    assert (What.STALE in told) != (What.CHANGED in told)  # the latter where it was checked later


def test_a_copy_that_returns_early_captures_memory_that_may_change(gpu: PrefetchingGpu) -> None:
    pageable = ctypes.create_string_buffer(bytes([3]) * 1000, 1000)
    address = ctypes.addressof(pageable)
    device, stream, word = gpu.malloc(1000), gpu.stream(), gpu.malloc(4)
    ctypes.memset(word, 0, 4)
    gpu.call("stream_wait_value", 0, stream, word, 1)  # the stream has not come to it
    gpu.copy(H2D, device, address, 1000, asynchronous=True, stream=stream)
    ctypes.memset(address, 4, 1000)
    gpu.call("stream_write_value", 0, 0, word, 1)
    gpu.synchronize(stream)
    assert content(device, 1000) == bytes([3]) * 1000


def test_small_copies_between_two_waits_cross_together(gpu: PrefetchingGpu) -> None:
    hosts = [filled(gpu, value, 500) for value in range(1, 21)]
    devices = [gpu.malloc(500) for _ in hosts]
    with gpu.crossing() as crossed:
        for host, device in zip(hosts, devices, strict=True):
            gpu.copy(H2D, device, host, 500, asynchronous=True)
        gpu.synchronize()
    assert crossed == [1]
    for value, device in enumerate(devices, 1):
        assert content(device, 500) == bytes([value]) * 500


@dataclass
class EngineAtRest:
    """From the first message in one direction on, nothing crosses before `go_on`."""

    gpu: PrefetchingGpu
    towards: int = H2D
    messages: list[int] = field(default_factory=list)
    """The directions of those that came."""

    def __enter__(self) -> Self:
        self._reached, self._going = threading.Event(), threading.Event()
        self.gpu.below.driver.set_tap(0, self._tap)
        return self

    def __exit__(self, *_: object) -> None:
        self._going.set()
        self.gpu.below.driver.set_tap(0, None)

    def _tap(self, direction: int, _number: int, _message: object) -> None:
        self.messages.append(direction)
        if direction == self.towards:
            self._reached.set()
            self._going.wait(30)

    def wait(self) -> None:
        assert self._reached.wait(30)

    def go_on(self) -> None:
        self._going.set()


def test_large_copies_that_wait_for_the_copy_thread_share_transfers(gpu: PrefetchingGpu) -> None:
    nbytes = TRANSFER // 4
    hosts = [filled(gpu, value, nbytes) for value in range(1, 14)]
    devices = [gpu.malloc(nbytes) for _ in hosts]
    with gpu.crossing() as crossed, EngineAtRest(gpu) as engine:
        large = filled(gpu, 99, TRANSFER)
        gpu.copy(H2D, gpu.malloc(TRANSFER), large, TRANSFER, asynchronous=True)
        for host, device in zip(hosts, devices, strict=True):
            gpu.copy(H2D, device, host, nbytes, asynchronous=True, stream=gpu.idle)
        engine.go_on()
        gpu.synchronize()
    assert crossed[0] <= 1 + 1 + 4  # the large one, what was there when it began, and by fours
    for value, device in enumerate(devices, 1):
        assert content(device, nbytes) == bytes([value]) * nbytes


def test_copies_of_all_sizes_into_the_same_bytes_stay_in_their_order(gpu: PrefetchingGpu) -> None:
    device, sizes = gpu.malloc(TRANSFER), (TRANSFER, 100, TRANSFER // 4, 100_000, TRANSFER, 20_000)
    hosts = [(filled(gpu, value, nbytes), nbytes) for value, nbytes in enumerate(sizes, 1)]
    word = gpu.malloc(4)
    ctypes.memset(word, 0, 4)
    for held in (True, False):
        for start in range(len(sizes)):
            expected = bytearray(TRANSFER)
            gpu.call("fill", 0, 0, device, 0, TRANSFER)
            if held:  # so that they wait for one another
                gpu.call("stream_wait_value", 0, 0, word, start + 1)
            for value, (host, nbytes) in list(enumerate(hosts, 1))[start:]:
                gpu.copy(H2D, device, host, nbytes, asynchronous=True)
                expected[:nbytes] = bytes([value]) * nbytes
            gpu.call("stream_write_value", 0, gpu.idle, word, start + 1)
            gpu.synchronize()
            assert content(device, TRANSFER) == expected


def test_copies_in_several_parts_stay_in_their_order(gpu: PrefetchingGpu) -> None:
    nbytes = 40 * MIB  # more than twice a part
    host, other, device = filled(gpu, 1, nbytes), filled(gpu, 2), gpu.malloc(nbytes)
    gpu.copy(H2D, device, host, nbytes, asynchronous=True)
    gpu.copy(H2D, device + nbytes - SIZE, other, SIZE, asynchronous=True)
    gpu.synchronize()
    assert content(device, nbytes) == bytes([1]) * (nbytes - SIZE) + bytes([2]) * SIZE


@pytest.mark.parametrize("foreseen", [False, True])
@pytest.mark.parametrize("nbytes", [TRANSFER // 4, SIZE])
def test_memory_of_the_buffer_is_not_used_again_before_the_device_has_copied_from_it(
    gpu: PrefetchingGpu, nbytes: int, foreseen: bool
) -> None:
    host, device = filled(gpu, 1, nbytes), gpu.malloc(nbytes)
    stream, word = gpu.stream(), gpu.malloc(4)
    ctypes.memset(word, 0, 4)
    if foreseen:
        gpu.prefetch((host, nbytes))
    gpu.call("stream_wait_value", 0, stream, word, 1)
    gpu.copy(H2D, device, host, nbytes, asynchronous=True, stream=stream)
    others = [filled(gpu, 2, nbytes) for _ in range(10)]
    elsewhere = gpu.malloc(nbytes)
    for other in others:
        gpu.prefetch((other, nbytes))
        gpu.copy(H2D, elsewhere, other, nbytes, asynchronous=True)
        gpu.synchronize(0)
    gpu.call("stream_write_value", 0, 0, word, 1)
    gpu.synchronize()
    assert content(device, nbytes) == bytes([1]) * nbytes


def test_what_changed_is_not_brought_over_bytes_that_another_copy_still_wants(
    gpu: PrefetchingGpu,
) -> None:
    pageable = ctypes.create_string_buffer(bytes([1]) * SIZE, SIZE)
    host, part, device, whole = (
        ctypes.addressof(pageable),
        50_000,
        gpu.malloc(SIZE),
        gpu.malloc(SIZE),
    )
    stream, word = gpu.stream(), gpu.malloc(4)
    ctypes.memset(word, 0, 4)
    gpu.prefetch((host, SIZE))
    gpu.call("stream_wait_value", 0, stream, word, 1)
    gpu.copy(H2D, device, host, part, asynchronous=True, stream=stream)
    # The program may change it now, and pin it.
    ctypes.memset(host, 2, SIZE)
    gpu.call("host_register", host, SIZE)
    gpu.copy(H2D, whole, host, SIZE, asynchronous=True)
    # Into the same memory: what is due on this stream is launched, and nothing on the other.
    gpu.copy(H2D, whole, filled(gpu, 2), 1, asynchronous=True)
    for _ in range(10_000):
        gpu.news()  # time for what should not happen; it launches nothing
    gpu.call("stream_write_value", 0, gpu.idle, word, 1)
    gpu.synchronize()
    assert content(device, part) == bytes([1]) * part
    assert content(whole) == bytes([2]) * SIZE
    gpu.call("host_unregister", host)


def test_nothing_foreseen_is_read_while_read_backs_need_the_link(gpu: PrefetchingGpu) -> None:
    back, foreseen, device = filled(gpu, 0), filled(gpu, 1), gpu.malloc(SIZE)
    with EngineAtRest(gpu, D2H) as engine:
        gpu.copy(D2H, back, device, SIZE, asynchronous=True)
        gpu.call("busy", 0, 0, 1)
        engine.wait()
        gpu.layer.transfer(0, [(foreseen, SIZE)])
        for _ in range(1000):
            gpu.layer.never_ahead(back, 1)  # time for what should not happen
        ctypes.memset(foreseen, 2, SIZE)
        engine.go_on()
        while (What.TRANSFERRED, foreseen, SIZE) not in gpu.news():
            pass
    gpu.copy(H2D, device, foreseen, SIZE, asynchronous=True)
    gpu.synchronize()
    assert not {What.STALE, What.CHANGED} & {what for what, _, _ in gpu.news()}
    assert content(device) == bytes([2]) * SIZE


def test_nothing_foreseen_crosses_right_after_a_copy_that_the_program_did_itself() -> None:
    gpu = PrefetchingGpu(quiet_ns=10**15)
    gpu.warm_up()
    before, host, device = filled(gpu, 1), filled(gpu, 2), gpu.malloc(SIZE)
    gpu.prefetch((before, SIZE))  # nothing has happened yet
    pageable = ctypes.create_string_buffer(SIZE)
    gpu.copy(H2D, device, ctypes.addressof(pageable), SIZE)
    gpu.layer.transfer(0, [(host, SIZE)])
    other = filled(gpu, 3)
    for _ in range(20):
        gpu.copy(H2D, device, other, SIZE, asynchronous=True)
        gpu.synchronize()
    assert (What.TRANSFERRED, host, SIZE) not in gpu.news()
    gpu.copy(H2D, device, host, SIZE, asynchronous=True)
    gpu.synchronize()
    assert content(device) == bytes([2]) * SIZE
    gpu.layer.stop()


def test_read_backs_go_before_what_was_foreseen(gpu: PrefetchingGpu) -> None:
    nbytes = TRANSFER - 1000
    hosts, foreseen = [filled(gpu, 0, nbytes) for _ in range(4)], filled(gpu, 1)
    device = gpu.malloc(nbytes)
    word = gpu.malloc(4)
    ctypes.memset(word, 0, 4)
    gpu.call("stream_wait_value", 0, 0, word, 1)
    for host in hosts:
        gpu.copy(D2H, host, device, nbytes, asynchronous=True)
    with EngineAtRest(gpu, D2H) as engine:
        gpu.call("stream_write_value", 0, gpu.idle, word, 1)
        engine.wait()
        gpu.layer.transfer(0, [(foreseen, SIZE)])
        engine.go_on()
        while (What.TRANSFERRED, foreseen, SIZE) not in gpu.news():
            pass
        gpu.synchronize()  # the driver has it; now it has crossed
    assert engine.messages == [D2H] * len(hosts) + [H2D]


def test_read_backs_wait_for_room_to_set_them_aside(gpu: PrefetchingGpu) -> None:
    nbytes = 3 * BUDGET
    device, host = gpu.malloc(nbytes), filled(gpu, 0, nbytes)
    gpu.call("fill", 0, 0, device, 7, nbytes)
    gpu.copy(D2H, host, device, nbytes, asynchronous=True)
    gpu.synchronize()
    assert content(host, nbytes) == bytes([7]) * nbytes
    landed = [length for what, _, length in gpu.news() if what == What.LANDED]
    assert sum(landed) == nbytes
    assert max(landed) <= BUDGET // 4  # none by the driver below


def test_a_copy_to_the_host_waits_for_what_is_before_it_and_is_there_after_a_wait(
    gpu: PrefetchingGpu,
) -> None:
    device, host, stream = gpu.malloc(SIZE), filled(gpu, 0), gpu.stream()
    word = gpu.malloc(4)
    ctypes.memset(word, 0, 4)
    event = gpu.event()
    gpu.call("stream_wait_value", 0, stream, word, 1)
    gpu.call("fill", 0, stream, device, 9, SIZE)
    gpu.copy(D2H, host, device, SIZE, asynchronous=True, stream=stream)
    gpu.call("fill", 0, stream, device, 1, SIZE)
    gpu.call("event_record", event, stream)
    assert gpu.call("event_query", event) == NOT_READY
    assert gpu.call("stream_query", 0, stream) == NOT_READY
    assert content(host) == bytes(SIZE)
    gpu.call("stream_write_value", 0, 0, word, 1)
    gpu.call("event_synchronize", event)
    assert content(host) == bytes([9]) * SIZE
    assert gpu.call("event_query", event) == OK


def test_a_wait_on_one_stream_waits_through_an_event_for_copies_of_another(
    gpu: PrefetchingGpu,
) -> None:
    device, host = gpu.malloc(SIZE), filled(gpu, 0)
    first, second, event = gpu.stream(), gpu.stream(), gpu.event()
    ctypes.memset(device, 8, SIZE)
    gpu.copy(D2H, host, device, SIZE, asynchronous=True, stream=first)
    gpu.call("event_record", event, first)
    gpu.call("stream_wait_event", 0, second, event)
    gpu.synchronize(second)
    assert content(host) == bytes([8]) * SIZE


class RecordedGpu(Gpu):
    """A GPU that keeps what is asked of it in a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        super().__init__()

    def lay_over(self) -> None:
        self.driver.record(str(self._folder))

    def asked(self) -> list[Event]:
        """What was asked of it so far."""
        (file,) = self._folder.glob("*" + tape.SUFFIX)
        recorded = tape.read(file)
        assert recorded is not None
        return [step.event for step in recorded.devices[0]]


def reads_back_early(gpu: PrefetchingGpu, below: RecordedGpu) -> bool:
    """Whether a read-back is asked for before the stream has come to it, not only after a wait."""
    device, host, stream, word = gpu.malloc(SIZE), filled(gpu, 0), gpu.stream(), gpu.malloc(4)
    ctypes.memset(word, 0, 4)
    gpu.call("fill", 0, stream, device, 4, SIZE)
    gpu.call("stream_wait_value", 0, stream, word, 1)
    gpu.copy(D2H, host, device, SIZE, asynchronous=True, stream=stream)
    first: list[Event] = []

    def release() -> None:
        deadline = time.monotonic() + 30
        while not first and time.monotonic() < deadline:
            asked = below.asked()[:-2]  # a tape ends with what ends a program
            first.extend(
                event
                for event in asked
                if isinstance(event, StreamWait) or event == Synchronize(stream)
            )
        gpu.call("stream_write_value", 0, gpu.stream(), word, 1)

    other = threading.Thread(target=release)
    other.start()
    gpu.synchronize(stream)
    other.join()
    assert content(host) == bytes([4]) * SIZE
    return isinstance(first[0], StreamWait)


def copy_often(gpu: PrefetchingGpu) -> None:
    host, device = filled(gpu, 1), gpu.malloc(SIZE)
    for _ in range(40):
        gpu.copy(H2D, device, host, 100, asynchronous=True)
    gpu.synchronize()


def test_a_read_back_that_nobody_else_would_wait_behind_is_asked_for_early(tmp_path: Path) -> None:
    below = RecordedGpu(tmp_path)
    gpu = PrefetchingGpu(below)
    copy_often(gpu)
    assert reads_back_early(gpu, below)


@pytest.mark.parametrize("who", ["another thread", "the planner"])
def test_a_read_back_does_not_keep_the_link_from_others(tmp_path: Path, who: str) -> None:
    below = RecordedGpu(tmp_path)
    gpu = PrefetchingGpu(below)
    copy_often(gpu)
    if who == "the planner":
        gpu.prefetch((filled(gpu, 2), SIZE), wait=False)
    else:
        other = threading.Thread(target=copy_often, args=(gpu,))
        other.start()
        other.join()
    assert not reads_back_early(gpu, below)


def test_a_copy_that_the_program_waits_for_is_made_by_its_own_thread(tmp_path: Path) -> None:
    below = RecordedGpu(tmp_path)
    gpu = PrefetchingGpu(below)
    device, stream = gpu.malloc(SIZE), gpu.stream()

    def on_its_stream(*, then: str) -> bool:
        """Whether a copy was put on the program's stream as it is, not on one of the layer's."""
        host = filled(gpu, 3)
        gpu.copy(H2D, device, host, SIZE, asynchronous=True, stream=stream)
        if then == "work":
            gpu.call("busy", 0, stream, 1000)
        gpu.synchronize(stream)
        copies = [event for event in below.asked() if isinstance(event, Copy)]
        assert content(device) == content(host)
        return (copies[-1].address, copies[-1].stream) == (host, stream)

    assert [on_its_stream(then="wait") for _ in range(8)] == [False] * 4 + [True] * 4
    assert on_its_stream(then="work")  # nobody knew
    assert not on_its_stream(then="work")


def test_two_copies_into_the_same_bytes_land_in_order(gpu: PrefetchingGpu) -> None:
    one, other, host = gpu.malloc(SIZE), gpu.malloc(SIZE), filled(gpu, 0)
    ctypes.memset(one, 1, SIZE)
    ctypes.memset(other, 2, SIZE)
    for _ in range(20):
        gpu.copy(D2H, host, one, SIZE, asynchronous=True)
        gpu.copy(D2H, host + 1000, other, SIZE - 1000, asynchronous=True)
        gpu.synchronize()
        assert content(host) == bytes([1]) * 1000 + bytes([2]) * (SIZE - 1000)


def test_what_is_still_on_the_device_need_not_cross_again(gpu: PrefetchingGpu) -> None:
    device, back, host, word = gpu.malloc(SIZE), gpu.malloc(SIZE), filled(gpu, 0), gpu.malloc(4)
    ctypes.memset(word, 0, 4)
    gpu.call("stream_wait_value", 0, 0, word, 1)
    gpu.call("fill", 0, 0, device, 6, SIZE)
    with gpu.crossing() as crossed:
        gpu.copy(D2H, host, device, SIZE, asynchronous=True)
        gpu.copy(H2D, back, host, SIZE, asynchronous=True)
        gpu.call("stream_write_value", 0, gpu.stream(), word, 1)
        gpu.synchronize()
    assert crossed == [0]
    assert content(back) == content(host) == bytes([6]) * SIZE


def test_a_large_copy_that_was_not_foreseen_returns_at_once(gpu: PrefetchingGpu) -> None:
    nbytes = 5 * MIB
    host, device, stream = filled(gpu, 2, nbytes), gpu.malloc(nbytes), gpu.stream()
    gpu.synchronize(stream)
    with EngineAtRest(gpu) as engine:
        gpu.copy(H2D, device, host, nbytes, asynchronous=True, stream=stream)
        gpu.call("busy", 0, stream, 1000)
        # The copy has not ended, the call has.
        assert gpu.call("stream_query", 0, stream) == NOT_READY
        engine.wait()
    gpu.synchronize(stream)
    assert content(device, nbytes) == bytes([2]) * nbytes


def test_a_copy_longer_than_a_segment_returns_at_once_behind_other_work(
    gpu: PrefetchingGpu,
) -> None:
    nbytes = 5 * MIB
    host, device = filled(gpu, 0, nbytes), gpu.malloc(nbytes)
    pattern = bytes(i % 253 for i in range(nbytes))
    ctypes.memmove(host, pattern, nbytes)
    stream, word = gpu.stream(), gpu.malloc(4)
    ctypes.memset(word, 0, 4)
    gpu.call("stream_wait_value", 0, stream, word, 1)
    call = threading.Thread(
        target=lambda: gpu.copy(H2D, device, host, nbytes, asynchronous=True, stream=stream)
    )
    call.start()
    call.join(30)
    returned = not call.is_alive()
    gpu.call("stream_write_value", 0, gpu.stream(), word, 1)
    call.join()
    gpu.synchronize(stream)
    assert returned
    assert content(device, nbytes) == pattern


def test_tokens_are_released_once_by_the_programs_thread_when_the_bytes_have_moved(
    gpu: PrefetchingGpu,
) -> None:
    released: list[tuple[int, int]] = []

    release = Release(lambda token: released.append((token, threading.get_ident())))
    host, small, device = filled(gpu, 1), filled(gpu, 1, 100), gpu.malloc(SIZE)
    gpu.prefetch((host, SIZE))
    token = 0
    for _ in range(2):  # found the first time
        for direction in (H2D, D2H):
            for source, nbytes in ((host, SIZE), (small, 100)):
                for asynchronous in (True, False):
                    token += 1
                    pair = (device, source) if direction == H2D else (source, device)
                    gpu.copy(
                        direction, *pair, nbytes,
                        asynchronous=asynchronous, release=release, token=token,
                    )  # fmt: skip
    gpu.synchronize()
    assert sorted(each for each, _ in released) == list(range(1, token + 1))
    assert {thread for _, thread in released} == {threading.get_ident()}


def test_the_buffer_stays_within_its_budget_and_the_program_does_not_see_it(
    gpu: PrefetchingGpu,
) -> None:
    before = gpu.memory_info().allocated
    pieces = [(filled(gpu, 1, MIB // 2), MIB // 2) for _ in range(40)]
    for piece in pieces[:8]:
        gpu.prefetch(piece)
    assert 0 < gpu.layer.held(0) <= BUDGET
    assert gpu.memory_info().allocated == before


def test_the_buffer_goes_before_the_program_is_told_that_memory_is_short() -> None:
    gpu = PrefetchingGpu(Gpu(memory_bytes=64 * MIB))
    gpu.warm_up()
    host = filled(gpu, 1)
    gpu.prefetch((host, SIZE))
    assert gpu.layer.held(0) > 0
    everything = gpu.memory_info()
    block = gpu.malloc(everything.total - everything.allocated)
    assert gpu.layer.held(0) == 0
    with pytest.raises(DriverError) as short:
        gpu.malloc(MIB)
    assert short.value.status == OUT_OF_MEMORY
    device = block
    gpu.copy(H2D, device, host, SIZE, asynchronous=True)
    gpu.synchronize()
    assert content(device) == bytes([1]) * SIZE
    gpu.layer.stop()


def test_memory_is_short_while_copies_are_under_way() -> None:
    gpu = PrefetchingGpu(Gpu(memory_bytes=64 * MIB))
    gpu.warm_up()
    device, host, back = gpu.malloc(4 * MIB), filled(gpu, 3, 4 * MIB), filled(gpu, 0, 4 * MIB)
    gpu.prefetch((host, MIB // 2))
    gpu.copy(H2D, device, host, 4 * MIB, asynchronous=True)
    gpu.copy(D2H, back, device, 4 * MIB, asynchronous=True)
    left = gpu.memory_info()
    gpu.malloc(left.total - left.allocated)
    gpu.synchronize()
    assert content(back, 4 * MIB) == bytes([3]) * (4 * MIB)
    gpu.layer.stop()


def test_what_the_program_forbids_to_read_is_not_prefetched(gpu: PrefetchingGpu) -> None:
    host = filled(gpu, 1)
    gpu.layer.never_ahead(host + 100, 10)
    gpu.layer.transfer(0, [(host, SIZE)])
    while (What.REFUSED, host, SIZE) not in gpu.news():
        pass
    assert gpu.layer.allow_ahead(host + 100, 10)
    device = gpu.malloc(SIZE)
    gpu.prefetch((host, SIZE))
    with gpu.crossing() as crossed:
        gpu.copy(H2D, device, host, SIZE, asynchronous=True)
        gpu.synchronize()
    assert crossed == [0]


def test_memory_that_is_gone_is_not_prefetched(gpu: PrefetchingGpu) -> None:
    gpu.layer.transfer(0, [(1 << 20, 4096)])
    while (What.REFUSED, 1 << 20, 4096) not in gpu.news():
        pass


@pytest.mark.parametrize("direction", [H2D, D2H])
def test_a_lost_context_is_told_and_every_token_released(direction: int) -> None:
    gpu = PrefetchingGpu()
    gpu.warm_up()
    released: list[int] = []
    release = Release(lambda token: released.append(token))
    host, device = filled(gpu, 1, 2 * MIB), gpu.malloc(2 * MIB)

    def forge(towards: int, _number: int, message: memoryview) -> None:
        if towards == direction:
            message[0] ^= 1

    gpu.below.driver.set_tap(0, forge)
    pair = (device, host) if direction == H2D else (host, device)

    def use() -> None:
        for token in range(1, 4):
            gpu.copy(direction, *pair, 2 * MIB, asynchronous=True, release=release, token=token)
        gpu.synchronize()

    with pytest.raises(DriverError) as lost:
        use()
    assert lost.value.status == CONTEXT_LOST
    assert "the context is lost" in str(lost.value)
    assert sorted(released) == list(range(1, len(released) + 1))
    with pytest.raises(DriverError, match="the context is lost"):
        gpu.copy(H2D, device, host, 10, asynchronous=True, release=release, token=9)
    assert released[-1] == 9
    # Whoever is given memory must hear so, or it stays for ever.
    gpu.call("free", gpu.malloc(MIB))
    gpu.call("free", device)
    gpu.layer.stop()


def test_a_copy_that_failed_behind_the_programs_back_is_told_once(gpu: PrefetchingGpu) -> None:
    host, device, back = filled(gpu, 1), gpu.malloc(SIZE), filled(gpu, 0)
    gpu.call("fill", 0, 0, device, 5, SIZE)
    gpu.synchronize()
    gpu.below.driver.skip_to(0, H2D, 2**32 - 1)  # no message to the device any more
    with pytest.raises(DriverError) as failed:
        copy_and_wait(gpu, device, host)
    assert failed.value.status == NOT_PERMITTED
    gpu.call("fill", 0, 0, device, 6, SIZE)
    gpu.copy(D2H, back, device, SIZE, asynchronous=True)
    gpu.synchronize()
    assert content(back) == bytes([6]) * SIZE


def test_what_was_foreseen_and_failed_to_cross_is_no_fault(gpu: PrefetchingGpu) -> None:
    host, device = filled(gpu, 1), gpu.malloc(SIZE)
    gpu.below.driver.skip_to(0, H2D, 2**32 - 1)
    gpu.layer.transfer(0, [(host, SIZE)])
    while (What.DROPPED, host, SIZE) not in gpu.news():
        pass
    gpu.synchronize()
    with pytest.raises(DriverError) as failed:
        copy_and_wait(gpu, device, host)
    assert failed.value.status == NOT_PERMITTED


def test_the_end_does_not_wait_for_a_stream_that_waits_for_ever(gpu: PrefetchingGpu) -> None:
    device, host, stream, word = gpu.malloc(SIZE), filled(gpu, 0), gpu.stream(), gpu.malloc(4)
    ctypes.memset(word, 0, 4)
    gpu.call("stream_wait_value", 0, stream, word, 1)
    gpu.call("fill", 0, stream, device, 9, SIZE)
    gpu.copy(D2H, host, device, SIZE, asynchronous=True, stream=stream)
    gpu.layer.stop()
    assert content(host) == bytes(SIZE)
    gpu.call("stream_write_value", 0, 0, word, 1)  # and yet it comes home
    gpu.synchronize(stream)
    assert content(host) == bytes([9]) * SIZE


def test_after_the_end_copies_go_as_without_the_layer(gpu: PrefetchingGpu) -> None:
    host, device, back = filled(gpu, 4), gpu.malloc(SIZE), filled(gpu, 0)
    gpu.copy(H2D, device, host, SIZE, asynchronous=True)
    gpu.copy(D2H, back, device, SIZE, asynchronous=True)
    gpu.layer.stop()
    assert content(back) == bytes([4]) * SIZE
    ctypes.memset(host, 5, SIZE)
    gpu.copy(H2D, device, host, SIZE, asynchronous=True)
    gpu.copy(D2H, back, device, SIZE, asynchronous=True)
    gpu.synchronize()
    assert content(back) == bytes([5]) * SIZE


def test_a_child_hears_that_it_may_not_use_the_device(gpu: PrefetchingGpu) -> None:
    host, device = filled(gpu, 1), gpu.malloc(SIZE)
    gpu.copy(H2D, device, host, SIZE, asynchronous=True)
    child = os.fork()
    if child == 0:
        try:
            gpu.call("free", device)
            gpu.copy(H2D, device, host, SIZE)
        except DriverError as refused:
            os._exit(0 if "forked" in str(refused) and gpu.ask("in_bad_fork") else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    gpu.synchronize()
    assert content(device) == bytes([1]) * SIZE
