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
from typing import Any

from pipellm.errors import UserError
from pipellm.output import Output
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


def save(path: Path, recording: Recording) -> None:
    """Writes a recording to `path`. Raises UserError."""
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in _lines(recording))
    # No date in it: the same recording is the same file.
    Output(path, "the trace").write(gzip.compress(text.encode(), mtime=0))


def load(path: Path) -> Recording:
    """The recording in the file. Raises UserError if it cannot be read, or is none."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the trace {path}: {error.strerror}") from None
    try:
        lines = gzip.decompress(content).decode().splitlines()
    except (OSError, EOFError, UnicodeDecodeError, zlib.error):
        whole = content[:2] != b"\x1f\x8b"
        fault = "it is not a trace" if whole else "it is damaged or cut off; record it again"
        raise UserError(f"cannot read the trace {path}: {fault}") from None
    try:
        return _Reader(json.loads(line) for line in lines).recording()
    except UserError as error:
        raise UserError(f"cannot read the trace {path}: {error}") from None
    except (AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError):
        raise UserError(
            f"cannot read the trace {path}: it is damaged or cut off; record it again"
        ) from None


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


def _event(fields: list[Any]) -> Event:
    match fields:
        case ["c", "h2d" | "d2h" as which, address, nbytes, device_address, stream, how]:
            direction = Direction[which.upper()]
            pinned, blocking = "p" in how, "b" in how
            return Copy(direction, address, nbytes, device_address, stream, blocking, pinned)
        case ["k", stream, flops, nbytes, kernels]:
            return Compute(float(flops), float(nbytes), stream, kernels)
        case ["s"]:
            return Synchronize()
        case ["s", stream]:
            return Synchronize(stream)
        case ["a", stream, awaited]:
            return StreamWait(stream, awaited)
        case ["w", address, nbytes]:
            return Write(address, nbytes)
        case ["i", seconds]:
            return Idle(seconds)
        case ["d", units]:
            return Done(units)
        case _:
            raise ValueError(fields)


def _number(value: float) -> float:
    """As an integer where it is one: shorter, and the same number when read."""
    return int(value) if float(value).is_integer() else value


class _Reader:
    def __init__(self, lines: Iterator[Any]) -> None:
        self._lines = lines
        self._events = 0

    def recording(self) -> Recording:
        header = next(self._lines)
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise UserError("it is not a trace")
        if header["version"] != VERSION:
            raise UserError(
                f"it has version {header['version']} of the format, and this PipeLLM reads version "
                f"{VERSION}; record it again"
            )
        traces: list[Trace] = []
        line = next(self._lines)
        while "events" not in line:
            steps, following = self._steps()
            argv = tuple(line.pop("argv"))
            traces.append(Trace(**line, argv=argv, steps=steps))
            line = following
        if line["events"] != self._events or not traces:
            raise ValueError
        program, settings = tuple(header["program"]), header["settings"]
        return Recording(program, settings, header["exit_status"], tuple(traces))

    def _steps(self) -> tuple[tuple[Timed, ...], dict[str, Any]]:
        """The events up to the next line that is none, and that line."""
        at = 0
        copies: list[Copy] = []
        steps: list[Timed] = []
        for line in self._lines:
            if isinstance(line, dict):
                self._events += len(steps)
                return tuple(steps), line
            at += line[0]
            if len(line) == 2 and isinstance(line[1], int):
                steps.append(Timed(at, copies[line[1]]))
                continue
            event = _event(line[1:])
            if isinstance(event, Copy):
                copies.append(event)
            steps.append(Timed(at, event))
        raise ValueError
