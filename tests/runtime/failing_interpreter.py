"""What stands in for pipellm.runtime.interpreter in a test: planners that run out of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pipellm.plan import Costs, Rules
from pipellm.prefetch import News, Tally
from pipellm.runtime.executor import Executor, Order
from pipellm.runtime.prefetching import PlainOrder, Prefetcher
from pipellm.runtime.speculation import Reporter
from pipellm.transfers import Transfer

REQUESTS = 40
"""So many are planned."""


class FailingExecutor(Executor):
    def _send(self, now: int, transfer: Transfer, validated: int | None) -> list[Order]:
        if transfer.ordinal > REQUESTS:
            raise MemoryError("no room to think")
        return super()._send(now, transfer, validated)


def open_executor(
    device: int,
    counters: memoryview,
    tell: Callable[[str], None] | None,
    rules: tuple[bool, int, int],
    costs: tuple[int, int],
) -> Executor:
    counted = Reporter(counters.cast("q"))
    return FailingExecutor(device, Rules(*rules), Costs(*costs), counted, tell)


class FailingPrefetcher(Prefetcher):
    def tell(self, news: Iterable[News], held: int) -> list[PlainOrder]:
        if self._planner.tally != Tally():
            raise MemoryError("no room to think")
        return super().tell(news, held)


def open_prefetcher(
    device: int, counters: memoryview, tell: Callable[[str], None] | None, transfer: int
) -> Prefetcher:
    return FailingPrefetcher(device, counters.cast("q"), tell, transfer)
