"""A recorded program, fit to be asked of the device again with real bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pipellm.errors import UserError
from pipellm.trace.file import load
from pipellm.trace.trace import Timed, Trace
from pipellm.workloads.events import Copy, Done, Idle, Write

_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Recorded:
    """Which trace of which file, and how."""

    file: str
    number: int | None = None
    """None: the one that copied most."""
    idle: bool = True
    """Whether the host's own time is kept."""

    def trace(self) -> Trace:
        """The trace, fit to be replayed. Raises UserError."""
        trace = load(Path(self.file)).trace(self.number)
        require_work(trace, self.file)
        return apart(trace, idle=self.idle)


def require_work(trace: Trace, file: str) -> None:
    """Raises UserError if nothing in it can be timed: nothing is copied, or nothing ever done."""
    kinds = {type(step.event) for step in trace.steps}
    if Copy not in kinds or Done not in kinds:
        raise UserError(f"there is nothing in {file} to replay: it copies nothing, or has no end")


def apart(trace: Trace, *, idle: bool = True) -> Trace:
    """The same with host buffers that do not overlap, in the order in which they were.

    A program may copy the whole of a buffer and then a part; a replayer checks each destination by
    what its source held, and so wants to know one from the other. Without `idle` the host's own
    time is left out.
    """
    places = sorted(
        {
            (step.event.address, step.event.nbytes)
            for step in trace.steps
            if isinstance(step.event, Copy | Write)
        }
    )
    moved: dict[tuple[int, int], int] = {}
    free = _PAGE
    for place in places:
        moved[place] = free
        free += -(-place[1] // _PAGE) * _PAGE

    def steps() -> Iterator[Timed]:
        for at, event in trace.steps:
            if isinstance(event, Idle) and not idle:
                continue
            if isinstance(event, Copy | Write):
                event = replace(event, address=moved[event.address, event.nbytes])
            yield Timed(at, event)

    return replace(trace, steps=tuple(steps()))
