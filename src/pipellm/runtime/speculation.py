"""What a policy that plans counts, beside what the driver does."""

from __future__ import annotations

from pipellm.plan.tally import Tally
from pipellm.runtime.shared_counters import SharedCounters

SPECULATION = (
    "hits",
    "misses",
    "hits_repetitive",
    "hits_fifo",
    "hits_lifo",
    "hits_told",
    "nops",
    "reorders",
    "relinquishes",
    "stale",
    "late",
)
"""Names of the counters, in order."""


class Reporter:
    """Keeps a planner's tally in counters that several planners share: int64, SPECULATION first."""

    def __init__(self, counters: memoryview) -> None:
        self._counters = SharedCounters(counters, len(SPECULATION))

    def __call__(self, tally: Tally) -> None:
        self._counters.set(
            [
                tally.hits,
                tally.misses,
                *(tally.by_pattern[name] for name in ("repetitive", "fifo", "lifo", "told")),
                tally.nops,
                tally.reorders,
                tally.relinquishes,
                tally.stale,
                tally.late,
            ]
        )
