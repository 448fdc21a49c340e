"""The trace file: gzip of lines of JSON, one per event. docs/traces.md is its reference.

For example:

    {"format": "pipellm trace", "version": 1, "program": [...], ...}    the recording
    {"name": "flexgen", "pid": 17, "device": 0, ...}                    a trace; its events follow
    [12, "c", "h2d", 140234, 1048576, 139, 0, "ap"]                     12 µs later, the 0th copy
    [8, 0]                                                              the same once more
    ...
    {"events": 2}                                                       the end

Times are differences in microseconds, so that what repeats is the same bytes again.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from pipellm.errors import UserError
from pipellm.input import checked
from pipellm.output import Output
from pipellm.terminal.text import plain_all
from pipellm.trace.lines import (
    ComputeLine,
    CopyLine,
    DoneLine,
    EventLine,
    FirstLine,
    IdleLine,
    LastLine,
    Microseconds,
    StreamWaitLine,
    SynchronizeLine,
    TraceLine,
    WriteLine,
)
from pipellm.trace.recording import Recording
from pipellm.trace.trace import Timed, Trace
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

FORMAT = "pipellm trace"
VERSION = 1

MOST_EVENTS = 10_000_000
"""In a file: a gigabyte in memory, or some days of a program."""
LONGEST_HEADS = 32 << 20
"""Bytes of all lines that are no event: command lines, mostly. No line is longer."""
LAST = 1 << 53
"""The latest time of an event, in microseconds."""

_DAMAGE = (
    *(EOFError, gzip.BadGzipFile, zlib.error),
    *(msgspec.MsgspecError, RecursionError, ValueError),
)
_fields_of = msgspec.json.Decoder(list[int | float | str])


def save(path: Path, recording: Recording) -> None:
    """Writes a recording to `path`. Raises UserError."""
    text = "".join(
        json.dumps(plain_all(line), separators=(",", ":")) + "\n" for line in _lines(recording)
    )
    # No date in it: the same recording is the same file.
    Output(path, "the trace").write(gzip.compress(text.encode(), mtime=0))


def load(path: Path) -> Recording:
    """The recording in the file. Raises UserError if it cannot be read, or is none.

    Text in it is made plain, so that it can be shown anywhere.
    """
    try:
        with path.open("rb") as file:
            if file.read(2) != b"\x1f\x8b":
                raise UserError("it is not a trace")
            file.seek(0)
            with gzip.GzipFile(fileobj=file) as lines:
                return _Reader(lines).recording()
    except UserError as error:
        raise UserError(f"cannot read the trace {path}: {error}") from None
    except _DAMAGE:
        raise UserError(
            f"cannot read the trace {path}: it is damaged or cut off; record it again"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read the trace {path}: {error.strerror}") from None


def _lines(recording: Recording) -> Iterator[object]:
    yield {
        "format": FORMAT,
        "version": VERSION,
        "program": recording.program,
        "settings": dict(recording.settings),
        "exit_status": recording.exit_status,
    }
    for trace in recording.traces:
        yield {
            "name": trace.name,
            "model": trace.model,
            "unit": trace.unit,
            "pid": trace.pid,
            "device": trace.device,
            "argv": trace.argv,
            "complete": trace.complete,
        }
        yield from _event_lines(trace.steps)
    yield {"events": sum(len(trace.steps) for trace in recording.traces)}


def _event_lines(steps: Iterable[Timed]) -> Iterator[list[object]]:
    """Times as differences; a copy that was there before as its number."""
    before = 0
    numbers: dict[Copy, int] = {}
    for at, event in steps:
        if isinstance(event, Copy) and event in numbers:
            yield [at - before, numbers[event]]
        else:
            if isinstance(event, Copy):
                numbers[event] = len(numbers)
            yield [at - before, *_fields(event)]
        before = at


def _fields(event: Event) -> tuple[object, ...]:
    match event:
        case Copy(direction, address, nbytes, device_address, stream, blocking, pinned):
            how = ("b" if blocking else "") + ("p" if pinned else "")
            which = direction.name.lower()
            return ("c", which, address, nbytes, device_address, stream, how)
        case Compute(flops, nbytes, stream, kernels):
            return ("k", stream, _number(flops), _number(nbytes), kernels)
        case Synchronize(stream):
            return ("s",) if stream is None else ("s", stream)
        case StreamWait(stream, awaited):
            return ("a", stream, awaited)
        case Write(address, nbytes):
            return ("w", address, nbytes)
        case Idle(seconds):
            return ("i", seconds)
        case Done(units):
            return ("d", units)


def _event(line: EventLine) -> Event:
    match line:
        case CopyLine(direction, address, nbytes, device_address, stream, how):
            pinned, blocking = "p" in how, "b" in how
            which = Direction[direction.upper()]
            return Copy(which, address, nbytes, device_address, stream, blocking, pinned)
        case ComputeLine(stream, flops, nbytes, kernels):
            return Compute(flops, nbytes, stream, kernels)
        case SynchronizeLine(awaited):
            return Synchronize(awaited)
        case StreamWaitLine(stream, awaited):
            return StreamWait(stream, awaited)
        case WriteLine(address, nbytes):
            return Write(address, nbytes)
        case IdleLine(seconds):
            return Idle(seconds)
        case DoneLine(units):
            return Done(units)


def _number(value: float) -> float:
    """As an integer where it is one: shorter, and the same number when read."""
    return int(value) if float(value).is_integer() else value


class _Reader:
    """Reads line by line, so that what a small file unpacks to never has to fit into memory."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file
        self._room = LONGEST_HEADS
        self._events = 0

    def recording(self) -> Recording:
        """Raises UserError or ValueError for what is none."""
        header = self._value()
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise UserError("it is not a trace")
        if header.get("version") != VERSION:
            raise UserError(
                f"it has version {header.get('version')!r:.20} of the format, and this PipeLLM "
                f"reads version {VERSION}; record it again"
            )
        first = checked(header, FirstLine)
        traces: list[Trace] = []
        line = self._value()
        while not (isinstance(line, dict) and "events" in line):
            head = checked(line, TraceLine)
            steps, line = self._steps()
            traces.append(
                Trace(
                    name=head.name,
                    model=head.model,
                    steps=steps,
                    pid=head.pid,
                    device=head.device,
                    argv=tuple(head.argv),
                    complete=head.complete,
                    unit=head.unit,
                )
            )
        if checked(line, LastLine).events != self._events or not traces or self._file.read(1):
            raise ValueError
        settings = msgspec.structs.asdict(first.settings)
        return Recording(tuple(first.program), settings, first.exit_status, tuple(traces))

    def _line(self) -> bytes:
        line = self._file.readline(self._room + 1)
        if not line or len(line) > self._room:
            raise ValueError
        if line.startswith(b"{"):
            self._room -= len(line)
        return line

    def _value(self) -> object:
        """The next line, which is no event."""
        return plain_all(msgspec.json.decode(self._line()))

    def _steps(self) -> tuple[tuple[Timed, ...], object]:
        """The events up to the next line that is none, and that line."""
        at = 0
        copies: list[Copy] = []
        known: dict[Event, Event] = {}  # what is there many times need not be there many times
        steps: list[Timed] = []
        while not (line := self._line()).startswith(b"{"):
            self._events += 1
            if self._events > MOST_EVENTS:
                raise UserError(f"it has more than {MOST_EVENTS:,} events")
            since, *fields = _fields_of.decode(line)
            at += checked(since, Microseconds)
            if not 0 <= at <= LAST:
                raise ValueError
            if len(fields) == 1 and type(fields[0]) is int:
                if not 0 <= fields[0] < len(copies):
                    raise ValueError
                steps.append(Timed(at, copies[fields[0]]))
                continue
            event = _event(msgspec.convert(fields, EventLine))
            if isinstance(event, Copy):
                copies.append(event)
            steps.append(Timed(at, known.setdefault(event, event)))
        return tuple(steps), plain_all(msgspec.json.decode(line))
