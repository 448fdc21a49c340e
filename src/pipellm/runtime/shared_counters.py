"""What one planner counts, in counters that several planners share."""

from __future__ import annotations

from collections.abc import Sequence


class SharedCounters:
    """Adds to the first counters of a view of int64 what has changed since the last time."""

    def __init__(self, counters: memoryview, count: int) -> None:
        self._counters = counters
        self._last: Sequence[int] = [0] * count

    def set(self, now: Sequence[int]) -> None:
        """What this planner has counted so far: `count` numbers, always in the same order."""
        for index, (value, before) in enumerate(zip(now, self._last, strict=True)):
            if value != before:
                self._counters[index] += value - before
        self._last = now
