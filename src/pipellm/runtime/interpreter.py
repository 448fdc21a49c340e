"""What native code imports in the interpreter of its own, in which the planners run.

That interpreter shares nothing with the program's but the process (native/interpreter/interpreter.h
says why there is one). Only pure Python may be imported from here: compiled modules are rarely made
for a second interpreter.
"""

from __future__ import annotations

from collections.abc import Callable

from pipellm.plan import Costs, Rules
from pipellm.runtime.executor import Executor
from pipellm.runtime.prefetching import Prefetcher
from pipellm.runtime.speculation import Reporter


def open_executor(
    device: int,
    counters: memoryview,
    tell: Callable[[str], None] | None,
    rules: tuple[bool, int, int],
    costs: tuple[int, int],
) -> Executor:
    """The executor of a device. `counters` are bytes: of one int64 for each name in SPECULATION."""
    return Executor(device, Rules(*rules), Costs(*costs), Reporter(counters.cast("q")), tell)


def open_prefetcher(
    device: int, counters: memoryview, tell: Callable[[str], None] | None, transfer: int
) -> Prefetcher:
    """The planner for prefetching of a device, with transfers of so many bytes at most.

    `counters` are bytes: of one int64 for each name in PREFETCHING.
    """
    return Prefetcher(device, counters.cast("q"), tell, transfer)
