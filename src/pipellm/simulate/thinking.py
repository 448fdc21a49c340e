"""How long the executor thinks about a program's copies, on the machine that this runs on.

Executor and planner are the same Python in the simulation as in the runtime, and how much they have
to think depends on the program. So they are run, over a context that does everything at once, and
timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pipellm.plan import Costs, Rules
from pipellm.runtime.executor import Executor
from pipellm.simulate.context import Ordered
from pipellm.workloads.events import Compute, Copy, Done, StreamWait, Synchronize, Workload

_COPIES = 4000


class _Instant:
    """A device for which nothing takes time."""

    def __init__(self) -> None:
        self.unsent = 0
        self._news: list[tuple[int, int, int]] = []
        self._landed: list[int] = []

    def speculate(
        self, id: int, address: int, nbytes: int, first: int, last: int, number: int, /
    ) -> None:
        self._news.append((id, last, 0))

    def unchanged(self, id: int, /) -> bool:
        return True

    def relinquish(self, id: int, /) -> None:
        pass

    def send(self, ordinal: int, number: int, /) -> None:
        self.unsent -= 1

    def commit(self, ordinal: int, number: int, speculation: int, /) -> None:
        self.unsent -= 1

    def send_nops(self, number: int, count: int, /) -> None:
        pass

    def receive(self, ordinal: int, number: int, /) -> None:
        self.unsent -= 1
        self._landed.append(ordinal)

    def news(self) -> list[tuple[int, int, int]]:
        news, self._news = self._news, []
        return news

    def landed(self) -> list[int]:
        landed, self._landed = self._landed, []
        return landed


def microseconds(workload: Workload, rules: Rules, *, warm: int = 0) -> float:
    """Of each copy after so many `warm` rounds (up to a Done), waits included; the mean."""
    context = _Instant()
    executor = Ordered(context, Executor(0, rules, Costs(), lambda tally: None), time.monotonic_ns)
    spent = 0
    copies = 0

    def timed(call: Callable[..., None], *arguments: object) -> None:
        nonlocal spent
        begin = time.perf_counter_ns()
        call(*arguments)
        spent += time.perf_counter_ns() - begin

    ordinal = 0
    for event in workload.events(lambda: 0.0):
        match event:
            case Copy():
                ordinal += 1
                copies += 1
                context.unsent += 1
                timed(
                    executor.request,
                    *(ordinal, event.direction, event.address, event.nbytes),
                    *(event.device_address, event.stream, event.blocking or not event.pinned),
                )
            case Synchronize(stream):
                timed(executor.synchronize, stream)
            case Compute() | StreamWait() if context.unsent:
                timed(executor.order, event.stream)
            case Done() if warm:
                warm -= 1
                spent = copies = 0
        if copies >= _COPIES and not warm:
            break
    return spent / copies / 1e3
