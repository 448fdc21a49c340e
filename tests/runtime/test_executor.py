"""The runtime seals ahead what will be asked for, and never sends a byte that has changed."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipellm.bench.driver_table import D2H, H2D, DriverError
from pipellm.plan import Rules
from tests.runtime.fixed_buffers import FixedBuffers
from tests.runtime.planned import KIB, MIB, PlannedGpu

SIZE = 300 * KIB


@pytest.fixture
def gpu() -> Iterator[PlannedGpu]:
    gpu = PlannedGpu()
    yield gpu
    gpu.close()


def fill(address: int, byte: int, nbytes: int = SIZE) -> None:
    ctypes.memset(address, byte, nbytes)


def rounds(gpu: PlannedGpu, buffers: list[int], count: int) -> None:
    for _ in range(count):
        for i, buffer in enumerate(buffers):
            content = ctypes.string_at(buffer, SIZE)
            assert gpu.load(buffer, SIZE) == content, i
        gpu.settle()


def rounds_with_changes(gpu: PlannedGpu, buffers: list[int]) -> None:
    for round_ in range(10):
        fill(buffers[2] + 1000, 0xEE - round_, 1)  # one byte, while it lies sealed ahead
        rounds(gpu, buffers, 3)


def weights(gpu: PlannedGpu, count: int = 6) -> list[int]:
    buffers = [gpu.host_alloc(SIZE) for _ in range(count)]
    for i, buffer in enumerate(buffers):
        fill(buffer, i + 1)
    return buffers


def test_repeated_swap_ins_are_sealed_ahead(gpu: PlannedGpu) -> None:
    buffers = weights(gpu)
    rounds(gpu, buffers, 6)
    assert gpu.tally["hits"] >= 3 * len(buffers)
    assert gpu.counted["sealed_ahead_bytes"] >= 3 * len(buffers) * SIZE
    assert gpu.counted["auth_failures"] == 0


@pytest.mark.parametrize("kind", ["pinned", "pageable"])
def test_a_plaintext_that_changed_is_never_sent_stale(gpu: PlannedGpu, kind: str) -> None:
    buffers = weights(gpu)
    # Pages of their own: of a heap's, a neighbour's write may be noticed first.
    regions = [mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE) for _ in buffers]
    if kind == "pageable":
        buffers = [ctypes.addressof(ctypes.c_char.from_buffer(region)) for region in regions]
    rounds(gpu, buffers, 5)
    hits = gpu.tally["hits"]
    assert hits
    rounds_with_changes(gpu, buffers)
    assert gpu.tally["stale"] >= 1
    assert gpu.tally["hits"] > hits


def test_a_change_far_into_a_long_buffer_is_never_sent_stale(gpu: PlannedGpu) -> None:
    """Its chunks are looked at one by one, when each is moved."""
    nbytes = 20 * MIB
    buffers = [gpu.host_alloc(nbytes) for _ in range(2)]
    for i, buffer in enumerate(buffers):
        fill(buffer, i + 1, nbytes)
    for round_ in range(8):
        for buffer in buffers:
            gpu.settle()
            fill(buffer + 18 * MIB, 0x80 + round_, 1)
            assert gpu.load(buffer, nbytes) == ctypes.string_at(buffer, nbytes)
    assert gpu.tally["hits"]


def test_without_a_look_at_the_plaintext_stale_data_would_be_sent(gpu: PlannedGpu) -> None:
    """The test above can fail: here is what it would see."""
    buffers = weights(gpu)
    rounds(gpu, buffers, 5)
    gpu.context.go_blind(bytes=True)
    with pytest.raises(AssertionError):
        rounds_with_changes(gpu, buffers)


@pytest.mark.parametrize("place", [0, SIZE - 1], ids=["the first byte", "the last byte"])
def test_a_write_that_no_watch_can_notice_is_told_by_the_bytes(gpu: PlannedGpu, place: int) -> None:
    """So do writes through pages look that somebody had pinned before."""
    buffers = weights(gpu)
    rounds(gpu, buffers, 5)
    gpu.context.go_blind()
    for round_ in range(5):
        fill(buffers[2] + place, 0xEE - round_, 1)
        rounds(gpu, buffers, 2)
    assert gpu.counted["unseen_writes"] > 0


@pytest.mark.parametrize("kind", ["pinned", "pageable"])
def test_a_write_through_pages_that_were_pinned_before_is_never_sent_stale(
    gpu: PlannedGpu, kind: str, tmp_path: object
) -> None:
    buffers = weights(gpu)
    # Pages of their own: of a heap's, a neighbour's write may be noticed first.
    regions = [mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE) for _ in buffers]
    if kind == "pageable":
        buffers = [ctypes.addressof(ctypes.c_char.from_buffer(region)) for region in regions]
    try:
        fixed = FixedBuffers([(buffer, SIZE) for buffer in buffers])
    except OSError as error:
        pytest.skip(f"no io_uring here: {error.strerror}")
    rounds(gpu, buffers, 5)
    hits = gpu.tally["hits"]
    assert hits
    with open(f"{tmp_path}/file", "w+b") as file:
        for round_ in range(5):
            os.pwrite(file.fileno(), bytes([0x40 + round_]) * SIZE, 0)
            fixed.read(file.fileno(), 2)
            rounds(gpu, buffers, 3)
    fixed.close()
    assert gpu.counted["unseen_writes"] > 0
    assert gpu.tally["hits"] > hits


def test_only_what_has_changed_of_a_long_buffer_is_sealed_anew(gpu: PlannedGpu) -> None:
    nbytes = 20 * MIB
    buffers = [gpu.host_alloc(nbytes) for _ in range(2)]
    for i, buffer in enumerate(buffers):
        fill(buffer, i + 1, nbytes)
    for _ in range(6):
        for buffer in buffers:
            gpu.settle()
            gpu.load(buffer, nbytes)
    gpu.settle()
    gpu.context.go_blind()
    for place in (5, 18):
        fill(buffers[0] + place * MIB, 0x80, 1)
    wasted = gpu.counted["wasted_bytes"]
    assert gpu.load(buffers[0], nbytes) == ctypes.string_at(buffers[0], nbytes)
    assert gpu.counted["unseen_writes"] == 2
    assert gpu.counted["wasted_bytes"] == wasted + 2 * MIB


def test_what_a_system_call_writes_is_noticed(gpu: PlannedGpu) -> None:
    buffers = weights(gpu)
    rounds(gpu, buffers, 5)
    source, sink = os.pipe()
    os.write(sink, b"from the kernel")
    view = (ctypes.c_char * SIZE).from_address(buffers[1])
    os.readv(source, [memoryview(view)[5000:5015]])
    assert b"from the kernel" in gpu.load(buffers[1], SIZE)
    rounds(gpu, buffers, 2)


def test_memory_that_is_freed_and_used_again_is_sealed_again(gpu: PlannedGpu) -> None:
    buffers = weights(gpu)
    rounds(gpu, buffers, 5)
    gpu.call("host_free", buffers[0])
    buffers[0] = gpu.host_alloc(SIZE)
    fill(buffers[0], 0x77)
    rounds(gpu, buffers, 2)


def test_pageable_memory_may_vanish_while_it_is_sealed_ahead(gpu: PlannedGpu) -> None:
    regions = [mmap.mmap(-1, 2 * MIB, flags=mmap.MAP_PRIVATE) for _ in range(4)]
    addresses = [ctypes.addressof(ctypes.c_char.from_buffer(region)) for region in regions]
    for _ in range(5):
        for address in addresses:
            gpu.load(address, 2 * MIB, asynchronous=False)
    regions[2].close()  # munmap, at a moment when it may just be read
    gpu.settle()
    for address in addresses[:2]:
        assert gpu.load(address, 2 * MIB, asynchronous=False) == bytes(2 * MIB)


def test_memory_that_cannot_be_read_is_not_sealed_ahead(gpu: PlannedGpu, tmp_path: object) -> None:
    """Neither where it is gone nor behind the end of a file; and no signal tells the program."""
    with open(f"{tmp_path}/weights", "w+b") as file:
        file.truncate(4 * SIZE)
        mapped = mmap.mmap(file.fileno(), 4 * SIZE, flags=mmap.MAP_SHARED)
        cut = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        file.truncate(2 * SIZE)
    gone = gpu.host_alloc(SIZE)  # so that there is a context
    gpu.load(gone, SIZE)
    gpu.settle()  # the planner has asked for news
    region = mmap.mmap(-1, SIZE)
    unmapped = ctypes.addressof(ctypes.c_char.from_buffer(region))
    libc = ctypes.CDLL(None)
    assert libc.munmap(ctypes.c_void_p(unmapped), ctypes.c_size_t(SIZE)) == 0
    sealable = gpu.counted["sealed_ahead_bytes"]
    for speculation, address in enumerate((cut + 2 * SIZE, unmapped, cut), start=1000):
        gpu.driver.declare_immutable(address, SIZE)
        gpu.context.speculate(speculation, address, SIZE, 0, 1, 1 << 20)
        gpu.settle()
    unfit = 1
    assert gpu.context.news() == [(1000, 0, unfit), (1001, 0, unfit), (1002, 1, 0)]
    assert gpu.counted["sealed_ahead_bytes"] == sealable + SIZE


def test_shared_memory_is_never_sealed_ahead(gpu: PlannedGpu) -> None:
    shared = mmap.mmap(-1, 6 * SIZE, flags=mmap.MAP_SHARED)
    start = ctypes.addressof(ctypes.c_char.from_buffer(shared))
    rounds(gpu, [start + i * SIZE for i in range(6)], 6)
    assert gpu.counted["sealed_ahead_bytes"] == 0


def test_memory_that_was_declared_immutable_needs_no_watching(gpu: PlannedGpu) -> None:
    shared = mmap.mmap(-1, 6 * SIZE, flags=mmap.MAP_SHARED)
    start = ctypes.addressof(ctypes.c_char.from_buffer(shared))
    buffers = [start + i * SIZE for i in range(6)]
    gpu.driver.declare_immutable(start, 6 * SIZE)
    rounds(gpu, buffers, 6)
    assert gpu.counted["sealed_ahead_bytes"] >= 3 * 6 * SIZE
    assert gpu.driver.withdraw_immutable(start, 6 * SIZE)
    for byte in range(3):
        for buffer in buffers:
            fill(buffer, 0x40 + byte)
        rounds(gpu, buffers, 2)
    assert not gpu.driver.withdraw_immutable(start, 6 * SIZE)


@pytest.mark.parametrize("whole", [True, False], ids=["all of it", "a part of it"])
def test_what_was_sealed_under_one_promise_is_not_sent_under_the_next(
    gpu: PlannedGpu, whole: bool
) -> None:
    """The documented way to change what is immutable: withdraw, change, declare again."""
    gpu.context.go_blind()  # and its fingerprint is not even looked at
    buffers = weights(gpu)
    for buffer in buffers:
        gpu.driver.declare_immutable(buffer, SIZE)
    rounds(gpu, buffers, 5)
    assert gpu.tally["hits"]
    changed = SIZE if whole else SIZE // 2
    for i, buffer in enumerate(buffers):
        assert gpu.driver.withdraw_immutable(buffer, changed)
        fill(buffer, 0x40 + i, changed)
        gpu.driver.declare_immutable(buffer, changed)
    rounds(gpu, buffers, 3)
    assert gpu.counted["unseen_writes"] == 0


def test_a_promise_that_was_broken_costs_time_and_no_byte(gpu: PlannedGpu) -> None:
    buffers = weights(gpu)
    for buffer in buffers:
        gpu.driver.declare_immutable(buffer, SIZE)
    rounds(gpu, buffers, 5)
    fill(buffers[3], 0x99)
    rounds(gpu, buffers, 2)
    assert gpu.counted["unseen_writes"] > 0


def test_what_is_not_to_be_read_ahead_is_not_until_it_is_allowed_again(gpu: PlannedGpu) -> None:
    buffers = weights(gpu)
    rounds(gpu, buffers, 5)
    for buffer in buffers:
        gpu.driver.never_ahead(buffer, SIZE)
    gpu.settle()
    before = gpu.counted["sealed_ahead_bytes"]
    rounds(gpu, buffers, 1)  # what it is asked to seal may come before it has said no
    hits = gpu.tally["hits"]
    rounds(gpu, buffers, 4)
    assert gpu.counted["sealed_ahead_bytes"] == before
    assert gpu.tally["hits"] == hits
    for buffer in buffers:
        assert gpu.driver.allow_ahead(buffer, SIZE)
        assert not gpu.driver.allow_ahead(buffer, SIZE)
    rounds(gpu, buffers, 6)
    assert gpu.tally["hits"] > hits


def test_not_ahead_of_a_part_is_not_ahead_of_the_whole(gpu: PlannedGpu) -> None:
    buffers = weights(gpu)
    for buffer in buffers:
        gpu.driver.never_ahead(buffer + SIZE - 1, 1)
    rounds(gpu, buffers, 6)
    assert gpu.counted["sealed_ahead_bytes"] == 0


def test_a_privately_mapped_file_is_sealed_ahead_and_the_device_gets_what_the_program_sees(
    gpu: PlannedGpu, tmp_path: object
) -> None:
    with open(f"{tmp_path}/weights", "w+b") as file:
        file.write(os.urandom(6 * SIZE))
        file.flush()
        mapped = mmap.mmap(file.fileno(), 6 * SIZE, flags=mmap.MAP_PRIVATE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        buffers = [start + i * SIZE for i in range(6)]
        rounds(gpu, buffers, 5)
        assert gpu.counted["sealed_ahead_bytes"] >= 2 * 6 * SIZE
        os.pwrite(file.fileno(), b"written by somebody else", SIZE)
        mapped[2 * SIZE : 2 * SIZE + 3] = b"own"
        rounds(gpu, buffers, 2)
        mapped.madvise(mmap.MADV_DONTNEED)  # the program asks for the file's content again
        assert b"written by somebody else" in gpu.load(buffers[1], SIZE)
        rounds(gpu, buffers, 2)


def test_a_file_mapped_for_sharing_is_never_sealed_ahead(gpu: PlannedGpu, tmp_path: object) -> None:
    with open(f"{tmp_path}/weights", "w+b") as file:
        file.write(os.urandom(6 * SIZE))
        file.flush()
        mapped = mmap.mmap(file.fileno(), 6 * SIZE, flags=mmap.MAP_SHARED)
        start = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        rounds(gpu, [start + i * SIZE for i in range(6)], 5)
        os.pwrite(file.fileno(), b"written by somebody else", SIZE)
        assert b"written by somebody else" in gpu.load(start + SIZE, SIZE)
    assert gpu.counted["sealed_ahead_bytes"] == 0


def test_preempted_requests_come_back_newest_first(gpu: PlannedGpu) -> None:
    blocks = [gpu.host_alloc(SIZE) for _ in range(4)]
    for round_ in range(8):
        for i, block in enumerate(blocks):
            gpu.store(block, bytes([round_ * 8 + i]) * SIZE)
        gpu.settle()
        for i, block in reversed(list(enumerate(blocks))):
            assert gpu.load(block, SIZE) == bytes([round_ * 8 + i]) * SIZE
            gpu.settle()
    assert gpu.tally["hits_lifo"] + gpu.tally["hits_repetitive"] > 0


def test_what_was_swapped_out_is_sealed_ahead_whenever_it_landed(gpu: PlannedGpu) -> None:
    buffers, others = weights(gpu), weights(gpu, 40)
    device = gpu.malloc(SIZE)
    for buffer in buffers:
        gpu.copy(D2H, buffer, device, SIZE, asynchronous=True)
    for other in others:  # while the swap-outs land, each time with a question to the planner
        gpu.copy(H2D, device, other, SIZE, asynchronous=True)
    gpu.synchronize()
    rounds(gpu, buffers, 4)
    before = gpu.tally["hits"]
    rounds(gpu, buffers, 2)
    assert gpu.tally["hits"] == before + 2 * len(buffers)


def test_an_asynchronous_swap_out_is_whole_after_the_synchronisation(gpu: PlannedGpu) -> None:
    nbytes = 40 * MIB + 3  # more messages than the bounce buffer has slots
    content = os.urandom(nbytes)
    host, device = gpu.host_alloc(nbytes), gpu.malloc(nbytes)
    ctypes.memmove(device, content, nbytes)
    fill(host, 0, nbytes)
    gpu.copy(D2H, host, device, nbytes, asynchronous=True)
    gpu.synchronize()
    assert ctypes.string_at(host, nbytes) == content


def test_a_swap_in_does_not_pass_a_swap_out_of_the_same_memory(gpu: PlannedGpu) -> None:
    nbytes = 40 * MIB
    out, back, other = (gpu.host_alloc(nbytes) for _ in range(3))
    device = gpu.malloc(nbytes)
    fill(device, 0x11, nbytes)
    fill(other, 0x22, nbytes)
    gpu.copy(D2H, out, device, nbytes, asynchronous=True)
    gpu.copy(H2D, device, other, nbytes, asynchronous=True)  # must not overwrite what is read
    gpu.copy(D2H, back, device, nbytes, asynchronous=True)
    gpu.copy(H2D, device, out, nbytes, asynchronous=True)  # must wait for what it reads
    gpu.synchronize()
    for address, byte in ((out, b"\x11"), (back, b"\x22"), (device, b"\x11")):
        assert ctypes.string_at(address, nbytes) == byte * nbytes


@pytest.mark.parametrize("direction", [H2D, D2H], ids=["H2D", "D2H"])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["blocking", "asynchronous"])
def test_a_forged_message_ends_the_context_and_is_not_delivered(
    gpu: PlannedGpu, direction: int, asynchronous: bool
) -> None:
    nbytes = 4 * MIB
    host, device = gpu.host_alloc(nbytes), gpu.malloc(nbytes)
    for address, byte in ((host, 0x55), (device, 0x66)):
        fill(address, byte, nbytes)

    def spoil(_direction: int, number: int, message: memoryview) -> None:
        if number == 3:
            message[100] ^= 1

    gpu.driver.set_tap(0, spoil)
    destination, source = (device, host) if direction == H2D else (host, device)

    def copy_and_wait() -> None:
        gpu.copy(direction, destination, source, nbytes, asynchronous=asynchronous)
        gpu.synchronize()

    name = "H2D" if direction == H2D else "D2H"
    with pytest.raises(DriverError, match=f"authentication failed: {name} message 3 "):
        copy_and_wait()
    gpu.driver.set_tap(0, None)
    third = ctypes.string_at(destination + 2 * MIB, MIB)
    assert third[:1] not in (b"\x55", b"\x66") or third == third[:1] * MIB
    assert ctypes.string_at(source, 1) * 16 not in third
    with pytest.raises(DriverError, match="authentication failed"):
        gpu.copy(H2D, device, host, 64)


def test_the_arena_never_exceeds_its_budget() -> None:
    gpu = PlannedGpu(rules=Rules(ahead=True, budget=5 * MIB))
    buffers = [gpu.host_alloc(3 * MIB) for _ in range(8)]
    for _ in range(6):
        for buffer in buffers:
            gpu.load(buffer, 3 * MIB)
            assert gpu.context.arena_in_use <= 5
    assert gpu.tally["hits"] > 0


operations = st.one_of(
    st.tuples(st.just("round"), st.integers(1, 3)),
    st.tuples(st.just("load"), st.integers(0, 5), st.booleans()),
    st.tuples(st.just("store"), st.integers(0, 5), st.booleans()),
    st.tuples(st.just("small"), st.integers(1, 4)),
    st.tuples(st.just("write"), st.integers(0, 5), st.integers(0, SIZE - 1)),
    st.tuples(st.just("reallocate"), st.integers(0, 5)),
    st.tuples(st.just("settle")),
    st.tuples(st.just("kernel"), st.integers(0, 5)),
    st.tuples(st.just("synchronize")),
)


@settings(max_examples=100, deadline=None)
@given(program=st.lists(operations, max_size=40), pinned=st.booleans())
def test_no_program_sees_anything_but_its_own_bytes(
    program: list[tuple[object, ...]], pinned: bool
) -> None:
    gpu = PlannedGpu()
    keep = [ctypes.create_string_buffer(SIZE) for _ in range(6)]
    host = [gpu.host_alloc(SIZE) if pinned else ctypes.addressof(keep[i]) for i in range(6)]
    device = [gpu.malloc(SIZE) for _ in range(6)]
    for i in range(6):
        fill(host[i], i)
        fill(device[i], 100 + i)
    host_model = [bytearray([i]) * SIZE for i in range(6)]
    device_model = [bytearray([100 + i]) * SIZE for i in range(6)]
    small = ctypes.create_string_buffer(64)

    def copy(direction: int, i: int, asynchronous: bool) -> None:
        pair = (device[i], host[i])
        destination, source = pair if direction == H2D else reversed(pair)
        gpu.copy(direction, destination, source, SIZE, asynchronous=asynchronous)
        if direction == H2D:
            device_model[i][:] = host_model[i]
        else:
            host_model[i][:] = device_model[i]

    for operation in [*program, ("synchronize",)]:
        match operation:
            case ("round", int(times)):
                for _ in range(times):
                    for i in range(6):
                        copy(H2D, i, True)
            case ("load", int(i), bool(asynchronous)):
                copy(H2D, i, asynchronous)
            case ("store", int(i), bool(asynchronous)):
                copy(D2H, i, asynchronous)
            case ("small", int(times)):
                for _ in range(times):
                    gpu.copy(H2D, device[0], ctypes.addressof(small), 64)
                device_model[0][:64] = small.raw
            case ("write", int(i), int(position)):
                gpu.synchronize()
                fill(host[i] + position, 0xAB, 1)
                host_model[i][position] = 0xAB
            case ("reallocate", int(i)) if pinned:
                gpu.synchronize()
                gpu.call("host_free", host[i])
                host[i] = gpu.host_alloc(SIZE)
                fill(host[i], 0x33)
                host_model[i][:] = b"\x33" * SIZE
            case ("settle",):
                gpu.settle()
            case ("kernel", int(i)):
                gpu.call("launch", 0, 0)
                fill(device[i], 0x11, 100)
                device_model[i][:100] = b"\x11" * 100
            case ("synchronize",):
                gpu.synchronize()
                for i in range(6):
                    assert ctypes.string_at(host[i], SIZE) == host_model[i]
                    assert ctypes.string_at(device[i], SIZE) == device_model[i]
    assert gpu.counted["auth_failures"] == 0
    gpu.close()
