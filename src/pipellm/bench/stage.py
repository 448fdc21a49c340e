"""A stage for a workload: real memory behind its addresses, and a check of every byte.

A workload's program is cut into *scenes* at moments when the device has nothing left to do. Before
a scene every host buffer holds a pattern of its own, and every place on the device that is to be
filled holds another. Afterwards each copy's destination is compared with the pattern that its
source held when the copy was asked for, byte by byte. Between scenes the device's time stands still
(native/bench/replay.h), so that none of this counts.

Within a scene every swap-in gets a place of its own on the device, so that no destination is
written twice before it is checked; what leaves the device leaves from memory that was given its
pattern before the scene. Host buffers stay where they are: their addresses are what a predictor
sees. One that is written twice in a scene is checked as it was left last, and, where it was read
in between, at the reader's.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from pipellm import _native
from pipellm.gpu.roofline import Roofline
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

_PAGE = 4096
_ROOM = 1 << 20  # for a small buffer, whose size may change
_SLAB = 256 << 20
_DEVICE = -1  # all streams
_EVERYTHING = Synchronize()


class _Kind(IntEnum):
    """As in native/bench/replay.h."""

    COPY, BUSY, SYNCHRONIZE, STREAM_WAIT, FILL, IDLE, MARK = range(7)


class WrongBytesError(Exception):
    """A copy did not deliver what its source held."""


@dataclass
class Scene:
    """A piece of the program, ready to be done."""

    operations: array[int] = field(default_factory=lambda: array("q"))
    rounds: int = 0
    """How often the program reached a Done."""
    units: int = 0
    device: dict[int, tuple[int, int]] = field(default_factory=dict)
    """What lies where on the device afterwards: address to bytes and pattern."""
    host: dict[int, tuple[int, int]] = field(default_factory=dict)
    """The same of host memory that was written."""

    def add(self, kind: _Kind, stream: int = 0, *numbers: int) -> None:
        """One more operation."""
        self.operations.extend((kind, stream, *numbers, *([0] * (5 - len(numbers)))))


class Stage:
    """Where one workload is played on one device."""

    def __init__(
        self,
        driver: _native.Driver,
        events: Iterator[Event],
        roofline: Roofline,
        scene_bytes: int,
        *,
        charged: bool = False,
    ) -> None:
        """`charged`: the program's thread pays for its own work in full where the emulated clock
        goes slower than the wall's (native/bench/replay.h)."""
        self._replay = _native.Replay(driver, charged=charged)
        self._events = events
        self._roofline = roofline
        self._scene_bytes = scene_bytes
        self._buffers: dict[tuple[int, bool], int] = {}
        self._slabs: dict[bool, tuple[int, int]] = {}
        self._pattern: dict[int, int] = {}  # of each host buffer
        self._last_pattern = 0
        self._device_start = self._device_size = self._device_used = 0
        self._ahead: list[Event] = []  # read already, for the next scene

    def prepare(self, rounds: int) -> Scene:
        """The next scene: at most so many rounds, and what fits on the device."""
        groups: list[list[Event]] = []
        needed = found = 0
        while found < rounds:
            group = self._ahead or self._next_group()
            self._ahead = []
            nbytes = sum(_footprint(event) for event in group)
            if groups and needed + nbytes > self._scene_bytes:
                self._ahead = group
                break
            groups.append(group)
            needed += nbytes
            found += sum(isinstance(event, Done) for event in group)
        self._make_room(needed)
        scene = Scene()
        scene.add(_Kind.MARK)
        for group in groups:
            for event in group:
                self._stage(scene, event)
        scene.add(_Kind.SYNCHRONIZE, _DEVICE)
        scene.add(_Kind.MARK)
        return scene

    def play(self, scene: Scene) -> float:
        """Does it; how many seconds of the emulated machine's time it took."""
        begin, end = self._replay.run(scene.operations)
        return (end - begin) * 1e-9

    def check(self, scene: Scene) -> int:
        """How many bytes arrived as they were sent. Raises WrongBytesError if one did not."""
        checked = 0
        for where, places in (("device", scene.device), ("host", scene.host)):
            for address, (nbytes, pattern) in places.items():
                if not _native.holds_pattern(address, nbytes, pattern):
                    raise WrongBytesError(
                        f"a copy of {nbytes:,} bytes to {where} memory brought wrong ones"
                    )
                checked += nbytes
        return checked

    def _next_group(self) -> list[Event]:
        """Up to the next moment at which nothing is under way, and what is done by then."""
        group: list[Event] = []
        for event in self._events:
            group.append(event)
            if _is_end(event):
                break
        return group

    def _make_room(self, nbytes: int) -> None:
        if nbytes > self._device_size:
            self._device_size = nbytes
            self._device_start = self._replay.device_memory(nbytes)
        # Nothing that came in an earlier scene must pass for what comes in this one.
        _native.fill_pattern(self._device_start, nbytes, self._new_pattern())
        self._device_used = 0

    def _stage(self, scene: Scene, event: Event) -> None:
        match event:
            case Copy():
                self._stage_copy(scene, event)
            case Compute():
                nanoseconds = round(self._roofline.device_seconds(event) * 1e9)
                scene.add(_Kind.BUSY, event.stream, nanoseconds, event.kernels)
            case Synchronize(stream):
                scene.add(_Kind.SYNCHRONIZE, _DEVICE if stream is None else stream)
            case StreamWait(stream, awaited):
                scene.add(_Kind.STREAM_WAIT, stream, awaited)
            case Write(address, nbytes):
                host, pattern = self._host(address, nbytes, pinned=True), self._new_pattern()
                self._pattern[host] = pattern
                scene.host[host] = (nbytes, pattern)
                scene.add(_Kind.FILL, 0, pattern, host, 0, nbytes)
            case Idle(seconds):
                scene.add(_Kind.IDLE, 0, round(seconds * 1e9))
            case Done(units):
                scene.rounds += 1
                scene.units += units

    def _stage_copy(self, scene: Scene, copy: Copy) -> None:
        host = self._host(copy.address, copy.nbytes, pinned=copy.pinned)
        device = self._device_start + self._device_used
        self._device_used += _pages(copy.nbytes)
        if copy.direction is Direction.H2D:
            scene.device[device] = (copy.nbytes, self._pattern[host])
        else:
            pattern = self._new_pattern()
            _native.fill_pattern(device, copy.nbytes, pattern)
            self._pattern[host] = pattern
            scene.host[host] = (copy.nbytes, pattern)
        scene.add(
            *(_Kind.COPY, copy.stream, copy.direction, host, device, copy.nbytes),
            int(not copy.blocking),
        )

    def _host(self, address: int, nbytes: int, *, pinned: bool) -> int:
        """Where a host buffer really lies; made, with a pattern, when it is first seen."""
        found = self._buffers.get((address, pinned))
        if found is None:
            size = max(_pages(nbytes), _ROOM) if nbytes < _ROOM // 8 else _pages(nbytes)
            found = self._buffers[address, pinned] = self._allocate(size, pinned=pinned)
            pattern = self._pattern[found] = self._new_pattern()
            _native.fill_pattern(found, size, pattern)
        return found

    def _allocate(self, size: int, *, pinned: bool) -> int:
        start, left = self._slabs.get(pinned, (0, 0))
        if size > left:
            left = max(size, _SLAB)
            start = self._replay.host_memory(left, pinned)
        self._slabs[pinned] = (start + size, left - size)
        return start

    def _new_pattern(self) -> int:
        self._last_pattern += 1
        return self._last_pattern


def room(events: Iterable[Event]) -> int:
    """Bytes of this machine's memory that it takes to play them: host buffers, and what is on the
    device between two moments at which nothing is under way."""
    host: dict[tuple[int, bool], int] = {}
    group = largest = 0
    for event in events:
        if isinstance(event, Copy | Write):
            pinned = event.pinned if isinstance(event, Copy) else True
            size = max(_pages(event.nbytes), _ROOM)
            host[event.address, pinned] = max(host.get((event.address, pinned), 0), size)
        group += _footprint(event)
        largest = max(largest, group)
        if _is_end(event):
            group = 0
    return sum(host.values()) + largest


def _is_end(event: Event) -> bool:
    return isinstance(event, Done) or event == _EVERYTHING


def _footprint(event: Event) -> int:
    return _pages(event.nbytes) if isinstance(event, Copy) else 0


def _pages(nbytes: int) -> int:
    return -(-nbytes // _PAGE) * _PAGE
