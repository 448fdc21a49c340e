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


def map_anew(
    region: Region, offset: int = PAGE, nbytes: int = PAGE, flags: int = mmap.MAP_PRIVATE
) -> None:
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    )  # fmt: skip
    fixed = 0x10
    flags |= mmap.MAP_ANONYMOUS | fixed
    place = region.address + offset
    assert libc.mmap(place, nbytes, 3, flags, -1, 0) == place


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


@pytest.mark.parametrize("known", [False, True], ids=["a new mapping", "a mapping known before"])
def test_a_watch_that_reaches_into_another_mapping_hides_no_write_from_an_older_one(
    tracker: _native.WriteTracker, region: Region, known: bool
) -> None:
    """The kernel protects the first one's pages again before it finds the second one unfit."""
    half = SIZE // 2
    map_anew(region, half, half)
    older = tracker.watch(region.address, half)
    assert older is not None
    map_anew(region, half, half)
    if known:
        assert tracker.watch(region.address + half + 4 * PAGE, PAGE) is not None
    region.map[half - PAGE] = 1
    tracker.watch(region.address + half - PAGE + 100, 4 * PAGE)
    assert not tracker.unchanged(older)


@pytest.mark.parametrize("second", [mmap.MAP_SHARED, None], ids=["shared memory", "a hole"])
def test_a_watch_that_is_refused_hides_no_write_from_an_older_one(
    tracker: _native.WriteTracker, region: Region, second: int | None
) -> None:
    half = SIZE // 2
    older = tracker.watch(region.address, half)
    assert older is not None
    if second is None:
        libc = ctypes.CDLL(None)
        assert libc.munmap(ctypes.c_void_p(region.address + half), ctypes.c_size_t(half)) == 0
    else:
        map_anew(region, half, half, second)
    region.map[half - PAGE] = 1
    assert tracker.watch(region.address + half - PAGE, 4 * PAGE) is None
    assert not tracker.unchanged(older)


def test_announced_writes_count_as_writes(tracker: _native.WriteTracker, region: Region) -> None:
    watch = watched(tracker, region)
    tracker.expect_writes(region.address, 10)
    assert not tracker.unchanged(watch)


def test_shared_memory_is_not_watched(tracker: _native.WriteTracker) -> None:
    shared = mmap.mmap(-1, SIZE, flags=mmap.MAP_SHARED)
    address = ctypes.addressof(ctypes.c_char.from_buffer(shared))
    assert tracker.watch(address, SIZE) is None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(SIZE))
    return path


def mapped(file: Path, flags: int = mmap.MAP_PRIVATE) -> Region:
    region = Region()
    with open(file, "r+b") as opened:
        region.map = mmap.mmap(opened.fileno(), SIZE, flags=flags)
    region.address = ctypes.addressof(ctypes.c_char.from_buffer(region.map))
    return region


def test_a_file_mapped_for_sharing_is_not_watched(
    tracker: _native.WriteTracker, file: Path
) -> None:
    assert tracker.watch(mapped(file, mmap.MAP_SHARED).address, SIZE) is None


def test_a_file_mapped_read_only_is_not_watched(tracker: _native.WriteTracker, file: Path) -> None:
    """Its pages cannot be made the process's own."""
    region = mapped(file)
    libc = ctypes.CDLL(None)
    assert libc.mprotect(ctypes.c_void_p(region.address), ctypes.c_size_t(SIZE), 1) == 0
    assert tracker.watch(region.address, SIZE) is None


def store(region: Region) -> None:
    region.map[3 * PAGE] ^= 1


@pytest.mark.parametrize("change", [store, write_from_the_kernel, map_anew, unmap])
def test_a_change_of_a_privately_mapped_file_is_noticed(
    tracker: _native.WriteTracker, file: Path, change: Callable[[Region], None]
) -> None:
    region = mapped(file)
    watch = watched(tracker, region)
    assert bytes(region.map) == file.read_bytes()
    assert tracker.unchanged(watch)
    change(region)
    assert not tracker.unchanged(watch)


@pytest.mark.parametrize("read", [False, True])
def test_a_private_mapping_that_shows_its_file_again_has_changed(
    tracker: _native.WriteTracker, file: Path, read: bool
) -> None:
    """The kernel protects the file's page too, and would take it for one that nobody wrote to."""
    region = mapped(file)
    watch = watched(tracker, region)
    give_back(region)
    if read:
        assert region.map[5 * PAGE] is not None
    assert not tracker.unchanged(watch)


@given(offset=st.integers(0, SIZE - 1), truncated=st.booleans())
def test_what_becomes_of_the_file_is_kept_out_or_noticed(
    tracker: _native.WriteTracker,
    tmp_path_factory: pytest.TempPathFactory,
    offset: int,
    truncated: bool,
) -> None:
    path = tmp_path_factory.mktemp("mapped") / "file"
    path.write_bytes(bytes(SIZE))
    region = mapped(path)
    watch = watched(tracker, region)
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"x")
        if truncated:
            file.truncate(offset)  # takes whole pages away, the process's own too
    unchanged = tracker.unchanged(watch)
    assert unchanged == (not truncated or offset > SIZE - PAGE)
    if unchanged:
        assert bytes(region.map) == bytes(SIZE)


def test_neighbours_in_a_mapped_file_do_not_disturb_each_other(
    tracker: _native.WriteTracker, file: Path
) -> None:
    """Tensors in a file share pages, and making one's pages own is a write."""
    region = mapped(file)
    first = tracker.watch(region.address, 10 * PAGE + 1)
    second = tracker.watch(region.address + 10 * PAGE + 1, 10 * PAGE)
    assert first is not None
    assert second is not None
    assert tracker.unchanged(first)
    assert tracker.unchanged(second)


def test_memory_that_became_shared_is_not_watched(
    tracker: _native.WriteTracker, region: Region
) -> None:
    """The tracker knew this place as private memory."""
    watched(tracker, region)
    map_anew(region, 0, SIZE, mmap.MAP_SHARED)
    assert tracker.watch(region.address, SIZE) is None


def test_unmapped_memory_is_not_watched(tracker: _native.WriteTracker, region: Region) -> None:
    unmap(region)
    assert tracker.watch(region.address, SIZE) is None
