"""How long the executor thinks when it is asked, on the machine that this runs on.

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
from pipellm.transfers import Direction, messages
from pipellm.workloads.events import Compute, Copy, Done, StreamWait, Synchronize, Workload

_COPIES = 4000


class _Instant:
    """A device for which nothing takes time."""

    def __init__(self) -> None:
        self.unsent: dict[int, int] = {}
        """Messages of each copy that was asked for, by its ordinal."""
        self.questions = 0
        self._next = dict.fromkeys(Direction, 1)
        self._news: list[tuple[int, int, int]] = []
        self._landed: list[int] = []

    def speculate(
        self, id: int, address: int, nbytes: int, first: int, last: int, number: int, /
    ) -> None:
        self._news.append((id, last, 0))

    def unchanged(self, id: int, /) -> bool:
        return True

    def whole(self, id: int, /) -> bool:
        return True

    def relinquish(self, id: int, /) -> None:
        pass

    def send(self, ordinal: int, number: int, /) -> None:
        self._next[Direction.H2D] += self.unsent.pop(ordinal)

    def commit(self, ordinal: int, number: int, speculation: int, /) -> None:
        self.send(ordinal, number)

    def send_nops(self, number: int, count: int, /) -> None:
        self._next[Direction.H2D] += count

    def receive(self, ordinal: int, number: int, /) -> None:
        self._next[Direction.D2H] += self.unsent.pop(ordinal)
        self._landed.append(ordinal)

    def next_number(self, direction: Direction, /) -> int:
        return self._next[direction]

    def think(self) -> None:
        self.questions += 1

    def news(self) -> list[tuple[int, int, int]]:
        news, self._news = self._news, []
        return news

    def landed(self) -> list[int]:
        landed, self._landed = self._landed, []
        return landed


def microseconds(workload: Workload, rules: Rules, *, warm: int = 0) -> float:
    """Of each question after so many `warm` rounds (up to a Done); the mean, 0 if there is none."""
    context = _Instant()
    executor = Ordered(context, Executor(0, rules, Costs(), lambda tally: None), time.monotonic_ns)
    spent = questions = 0

    def timed(call: Callable[..., None], *arguments: object) -> None:
        nonlocal spent, questions
        before = context.questions
        begin = time.perf_counter_ns()
        call(*arguments)
        if context.questions > before:
            spent += time.perf_counter_ns() - begin
            questions += 1

    ordinal = copies = 0
    for event in workload.events(lambda: 0.0):
        match event:
            case Copy():
                ordinal += 1
                copies += 1
                context.unsent[ordinal] = messages(event.nbytes)
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
                spent = questions = copies = 0
        if copies >= _COPIES and not warm:
            break
    return spent / questions / 1e3 if questions else 0.0
