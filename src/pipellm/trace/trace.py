"""A trace: what one process asked of one device, in order, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pipellm.workloads.events import Event

UNIT = "runs"
"""What a trace's `Done` counts: nobody beneath a program knows what it calls its work."""


class Timed(NamedTuple):
    """An event and its time."""

    at: int
    """Microseconds since the first event, on the clock of the machine that recorded it."""
    event: Event


@dataclass(frozen=True, slots=True)
class Trace:
    """A workload that has happened. Its events do not depend on the replayer's clock."""

    name: str
    """The program: its script's or module's name, if the user gave it no other."""
    model: str
    """The model's name, or `-`: nobody beneath a program knows it."""
    steps: tuple[Timed, ...]
    pid: int = 0
    device: int = 0
    argv: tuple[str, ...] = ()
    """The process's command line."""
    complete: bool = True
    """False if the disk filled up while it was recorded, and the end is missing."""
    unit: str = UNIT

    def events(self, now: Callable[[], float]) -> Iterator[Event]:
        """What the program did, in order."""
        return (step.event for step in self.steps)

    @property
    def seconds(self) -> float:
        """From the first event to the last, as recorded."""
        return (self.steps[-1].at - self.steps[0].at) / 1e6 if self.steps else 0.0
