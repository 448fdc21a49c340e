"""A recording: the traces of one run of a program, and what it ran on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipellm.errors import UserError
from pipellm.trace.trace import Trace
from pipellm.workloads.events import Copy


@dataclass(frozen=True, slots=True)
class Recording:
    """One run. A program of several processes, or on several devices, has several traces."""

    program: tuple[str, ...]
    """The command line."""
    settings: Mapping[str, str]
    """`gpu`, `profile` and `policy` that it ran under."""
    exit_status: int | None
    """None if the program died of a signal."""
    traces: tuple[Trace, ...]
    """In the order in which their processes began; at least one."""

    def trace(self, number: int | None = None) -> Trace:
        """The `number`-th trace, from 1; without a number the one that copied most.

        Raises UserError if there is no such trace.
        """
        if number is None:
            return max(self.traces, key=copied)
        if not 1 <= number <= len(self.traces):
            raise UserError(f"there is no trace {number} in it, only 1 to {len(self.traces)}")
        return self.traces[number - 1]


def copied(trace: Trace) -> int:
    """Bytes that crossed the link."""
    return sum(step.event.nbytes for step in trace.steps if isinstance(step.event, Copy))
