"""What the driver wrote down while the program ran (native/recorder/recorder.h), made into traces.

The driver notes calls and operators with the time at which each began and ended. The time in which
the program was in neither is its own: it becomes `Idle`. How long operators took does not, because
it was this CPU that ran them; what they were becomes `Compute`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from pipellm.trace.trace import Timed
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

SUFFIX = ".events"

_HEADER = struct.Struct("=QqqQQ")
_MAGIC = 0x31636572706C7000
_EVENT = struct.Struct("=BBHIqqqQQQdq")
_TO_HOST, _BLOCKING, _PINNED, _CHANGED, _FAILED = 1, 2, 4, 8, 16


class _Kind(IntEnum):
    COPY = 1
    COMPUTE = 2
    SYNC_STREAM = 3
    SYNC_DEVICE = 4
    STREAM_WAIT = 5


_WORK = (_Kind.COPY, _Kind.COMPUTE)


class _Noted(NamedTuple):
    kind: int
    flags: int
    device: int
    kernels: int
    begin: int
    end: int
    stream: int
    address: int
    nbytes: int
    device_address: int
    flops: float
    between: int


@dataclass(frozen=True, slots=True)
class Tape:
    """What one process did, by device."""

    pid: int
    complete: bool
    devices: dict[int, tuple[Timed, ...]]
    """Those that something was copied to or computed on."""


def read(file: Path) -> Tape | None:
    """The tape in the file, or None if there is nothing on it."""
    content = memoryview(file.read_bytes())
    if len(content) < _HEADER.size:
        return None
    magic, pid, _, count, full = _HEADER.unpack_from(content)
    if magic != _MAGIC:
        return None
    # A process that was killed, or wrote where it should not, may leave anything.
    count = min(count, (len(content) - _HEADER.size) // _EVENT.size)
    end = _HEADER.size + count * _EVENT.size
    noted = [_Noted(*fields) for fields in _EVENT.iter_unpack(content[_HEADER.size : end])]
    noted = [event for event in noted if 0 <= event.flops < math.inf]
    devices = {
        device: tuple(_steps(event for event in noted if event.device == device))
        for device in sorted({e.device for e in noted if e.kind in _WORK})
    }
    return Tape(pid, not full, devices) if devices else None


def _steps(noted: Iterable[_Noted]) -> Iterator[Timed]:
    start = busy_until = last = None
    for event in noted:
        if event.flags & _FAILED:
            continue
        if start is None:
            if event.kind not in _WORK:
                continue  # nothing to wait for yet: the device is being set up
            start = busy_until = event.begin
        assert busy_until is not None
        # Threads may note an operator after a copy that they asked for later.
        last = max(last or 0, event.begin - start)
        if (idle := _microseconds(event.begin - busy_until)) > 0:
            yield Timed(_microseconds(last) - idle, Idle(idle / 1e6))
        for what in _events(event):
            yield Timed(_microseconds(last), what)
        busy_until = max(busy_until, event.begin, event.end)
    if start is not None and busy_until is not None:
        end = _microseconds(busy_until - start)
        yield Timed(end, Synchronize())
        yield Timed(end, Done())


def _events(noted: _Noted) -> Iterator[Event]:
    match noted.kind:
        case _Kind.COPY:
            if noted.flags & _CHANGED:
                yield Write(noted.address, noted.nbytes)
            yield Copy(
                Direction.D2H if noted.flags & _TO_HOST else Direction.H2D,
                noted.address,
                noted.nbytes,
                noted.device_address,
                noted.stream,
                blocking=bool(noted.flags & _BLOCKING),
                pinned=bool(noted.flags & _PINNED),
            )
        case _Kind.COMPUTE:
            yield Compute(noted.flops, float(noted.nbytes), noted.stream, noted.kernels)
            # The host went on while the device was computing, so what it did in between overlaps.
            if (between := _microseconds(noted.between)) > 0:
                yield Idle(between / 1e6)
        case _Kind.SYNC_STREAM:
            yield Synchronize(noted.stream)
        case _Kind.SYNC_DEVICE:
            yield Synchronize()
        case _Kind.STREAM_WAIT:
            yield StreamWait(noted.stream, noted.address)


def _microseconds(nanoseconds: int) -> int:
    return round(nanoseconds / 1000)
