"""Whatever changes memory is noticed; what could not be noticed is not watched at all."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipellm import _native

PAGE = mmap.PAGESIZE
SIZE = 64 * PAGE


class Region:
    """Private anonymous memory."""

    def __init__(self) -> None:
        self.map = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))


@pytest.fixture(scope="module")
def tracker() -> _native.WriteTracker:
    tracker = _native.WriteTracker()
    if not tracker.works:
        pytest.skip("this kernel has no asynchronous write protection (Linux 6.7 and 6.11)")
    return tracker


@pytest.fixture
def region() -> Region:
    region = Region()
    region.map[:] = os.urandom(SIZE)
    return region


def watched(tracker: _native.WriteTracker, region: Region) -> _native.Watch:
    watch = tracker.watch(region.address, SIZE)
    assert watch is not None
    assert tracker.unchanged(watch)
    return watch


def test_reading_is_no_change(tracker: _native.WriteTracker, region: Region) -> None:
    watch = watched(tracker, region)
    assert len(bytes(region.map)) == SIZE
    assert tracker.unchanged(watch)


@given(offset=st.integers(0, SIZE - 1))
def test_one_byte_anywhere_is_a_change(tracker: _native.WriteTracker, offset: int) -> None:
    region = Region()
    watch = watched(tracker, region)
    region.map[offset] = 1
    assert not tracker.unchanged(watch)


def write_from_the_kernel(region: Region) -> None:
    source, sink = os.pipe()
    os.write(sink, b"x")
    os.readv(source, [memoryview(region.map)[9999:10000]])


def give_back(region: Region) -> None:
    region.map.madvise(mmap.MADV_DONTNEED, 5 * PAGE, PAGE)


def map_anew(region: Region) -> None:
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    )  # fmt: skip
    fixed = 0x10
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | fixed
    assert libc.mmap(region.address + PAGE, PAGE, 3, flags, -1, 0) == region.address + PAGE


def unmap(region: Region) -> None:
    libc = ctypes.CDLL(None)
    assert libc.munmap(ctypes.c_void_p(region.address + 60 * PAGE), ctypes.c_size_t(PAGE)) == 0


@pytest.mark.parametrize("change", [write_from_the_kernel, give_back, map_anew, unmap])
def test_a_change_without_a_store_is_noticed(
    tracker: _native.WriteTracker, region: Region, change: Callable[[Region], None]
) -> None:
    watch = watched(tracker, region)
    change(region)
    assert not tracker.unchanged(watch)


def test_a_forked_childs_writes_are_its_own(tracker: _native.WriteTracker, region: Region) -> None:
    watch = watched(tracker, region)
    pid = os.fork()
    if pid == 0:
        region.map[0] = 1
        os._exit(0)
    os.waitpid(pid, 0)
    assert tracker.unchanged(watch)
    region.map[0] = 2  # the page is shared with nobody any more; still noticed
    assert not tracker.unchanged(watch)


def test_watching_again_hides_no_write_from_an_older_watch(
    tracker: _native.WriteTracker, region: Region
) -> None:
    older = watched(tracker, region)
    region.map[100] = 1
    newer = tracker.watch(region.address + 50, 100)  # the same page, protected again by this
    assert newer is not None
    assert tracker.unchanged(newer)
    assert not tracker.unchanged(older)


def test_announced_writes_count_as_writes(tracker: _native.WriteTracker, region: Region) -> None:
    watch = watched(tracker, region)
    tracker.expect_writes(region.address, 10)
    assert not tracker.unchanged(watch)


def test_shared_memory_is_not_watched(tracker: _native.WriteTracker) -> None:
    shared = mmap.mmap(-1, SIZE, flags=mmap.MAP_SHARED)
    address = ctypes.addressof(ctypes.c_char.from_buffer(shared))
    assert tracker.watch(address, SIZE) is None


@pytest.mark.parametrize("flags", [mmap.MAP_PRIVATE, mmap.MAP_SHARED])
def test_a_mapped_file_is_not_watched(
    tracker: _native.WriteTracker, tmp_path: Path, flags: int
) -> None:
    with open(tmp_path / "file", "w+b") as file:
        file.write(bytes(SIZE))
        file.flush()
        mapped = mmap.mmap(file.fileno(), SIZE, flags=flags)
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        assert tracker.watch(address, SIZE) is None


def test_memory_that_became_shared_is_not_watched(
    tracker: _native.WriteTracker, region: Region
) -> None:
    """The tracker knew this place as private memory."""
    watched(tracker, region)
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    )  # fmt: skip
    flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | 0x10
    assert libc.mmap(region.address, SIZE, 3, flags, -1, 0) == region.address
    assert tracker.watch(region.address, SIZE) is None


def test_unmapped_memory_is_not_watched(tracker: _native.WriteTracker, region: Region) -> None:
    unmap(region)
    assert tracker.watch(region.address, SIZE) is None
