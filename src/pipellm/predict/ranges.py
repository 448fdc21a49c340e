"""Which buffers are there, found again by any range of memory that touches them."""

from __future__ import annotations

from bisect import bisect_left, insort

Range = tuple[int, int]
"""Address and number of bytes."""


class Ranges:
    """A set of address ranges, at most `limit` of them: the oldest make room.

    Adding and removing take a search and a memmove of a sorted list: microseconds for tens of
    thousands of ranges.
    """

    def __init__(self, limit: int = 1 << 15) -> None:
        self._limit = limit
        self._sorted: list[Range] = []
        self._members: dict[Range, None] = {}
        self._longest = 0

    def __contains__(self, item: Range) -> bool:
        return item in self._members

    def __len__(self) -> int:
        return len(self._members)

    def add(self, item: Range) -> Range | None:
        """Add a range; returns the one that had to make room, if any."""
        if item in self._members:
            return None
        crowded_out = None
        if len(self._members) >= self._limit:
            crowded_out = next(iter(self._members))
            self.discard(crowded_out)
        self._members[item] = None
        insort(self._sorted, item)
        if item[1] > self._longest:
            self._longest = item[1]
        return crowded_out

    def discard(self, item: Range) -> None:
        """Remove a range if it is there."""
        if item in self._members:
            del self._members[item]
            del self._sorted[bisect_left(self._sorted, item)]

    def overlapping(self, address: int, nbytes: int) -> list[Range]:
        """All members that share a byte with this range."""
        members = self._sorted
        first = bisect_left(members, (address - self._longest + 1,))
        if first == len(members) or members[first][0] >= address + nbytes:
            return []
        last = bisect_left(members, (address + nbytes,), first)
        return [item for item in members[first:last] if item[0] + item[1] > address]
