"""What the driver notes becomes events: its calls as they were, the host's time beside them."""

from __future__ import annotations

import struct
from pathlib import Path

from pipellm.trace import Timed
from pipellm.trace.tape import read
from pipellm.transfers import Direction
from pipellm.workloads.events import Compute, Copy, Done, Idle, Synchronize, Write

HEADER, EVENT = struct.Struct("=QqqQQ"), struct.Struct("=BBHIqqqQQQdq")
COPY, COMPUTE, SYNC_STREAM, SYNC_DEVICE = range(1, 5)
TO_HOST, BLOCKING, PINNED, CHANGED, FAILED = 1, 2, 4, 8, 16


def noted(
    kind: int,
    begin_us: int,
    end_us: int,
    *,
    flags: int = 0,
    device: int = 0,
    stream: int = 0,
    address: int = 0,
    nbytes: int = 0,
    kernels: int = 0,
    flops: float = 0.0,
    between_us: int = 0,
) -> bytes:
    times = (begin_us * 1000, end_us * 1000)
    where = (stream, address, nbytes, 0)
    return EVENT.pack(kind, flags, device, kernels, *times, *where, flops, between_us * 1000)


def tape(folder: Path, *events: bytes, magic: int = 0x31636572706C7000, full: int = 0) -> Path:
    file = folder / "1.events"
    room = b"\0" * 500  # what was made but not filled
    file.write_bytes(HEADER.pack(magic, 17, 0, len(events), full) + b"".join(events) + room)
    return file


def steps(folder: Path, *events: bytes) -> list[Timed]:
    found = read(tape(folder, *events))
    assert found is not None
    assert (found.pid, found.complete, list(found.devices)) == (17, True, [0])
    return list(found.devices[0])


def test_time_between_calls_is_the_hosts_and_time_inside_them_is_not(tmp_path: Path) -> None:
    assert steps(
        tmp_path,
        noted(COPY, 100, 150, address=5, nbytes=7, flags=PINNED),
        noted(COMPUTE, 170, 900, flops=3, nbytes=4, kernels=2, between_us=11),
        noted(SYNC_STREAM, 900, 950, stream=3),
    ) == [
        Timed(0, Copy(Direction.H2D, 5, 7, 0)),
        Timed(50, Idle(2e-05)),
        Timed(70, Compute(3.0, 4.0, 0, 2)),
        Timed(70, Idle(1.1e-05)),  # of which the operators took none
        Timed(800, Synchronize(3)),
        Timed(850, Synchronize()),
        Timed(850, Done()),
    ]


def test_a_changed_source_was_written_to_before(tmp_path: Path) -> None:
    copy = noted(COPY, 0, 1, address=5, nbytes=9000, flags=BLOCKING | CHANGED)
    assert [event for _, event in steps(tmp_path, copy)][:2] == [
        Write(5, 9000),
        Copy(Direction.H2D, 5, 9000, 0, blocking=True, pinned=False),
    ]


def test_what_was_refused_never_was_and_what_was_cut_off_was(tmp_path: Path) -> None:
    events = steps(
        tmp_path,
        noted(COPY, 0, 1, nbytes=1, flags=FAILED),
        noted(COPY, 10, 20, nbytes=2, flags=TO_HOST),
        noted(COPY, 30, 0, nbytes=3, flags=TO_HOST),
    )
    assert [event.nbytes for _, event in events if isinstance(event, Copy)] == [2, 3]
    assert events[-1] == Timed(20, Done())


def test_it_begins_with_the_first_copy_or_operator(tmp_path: Path) -> None:
    events = steps(tmp_path, noted(SYNC_DEVICE, 0, 9), noted(COPY, 5000, 5001, nbytes=1))
    assert events[0] == Timed(0, Copy(Direction.H2D, 0, 1, 0, pinned=False))


def test_devices_are_told_apart_and_those_unused_left_out(tmp_path: Path) -> None:
    found = read(
        tape(
            tmp_path,
            noted(SYNC_DEVICE, 0, 1, device=0),
            noted(COPY, 2, 3, device=2, nbytes=1),
            noted(COMPUTE, 2, 3, device=1),
            full=1,
        )
    )
    assert found is not None
    assert list(found.devices) == [1, 2]
    assert not found.complete


def test_an_empty_or_foreign_file_is_no_tape(tmp_path: Path) -> None:
    assert read(tape(tmp_path)) is None
    assert read(tape(tmp_path, noted(COPY, 0, 1, nbytes=1), magic=5)) is None
    (tmp_path / "short.events").write_bytes(b"12")
    assert read(tmp_path / "short.events") is None
