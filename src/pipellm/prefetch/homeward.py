"""Host memory that read-backs are about to write."""

from __future__ import annotations

from collections import Counter

from pipellm.predict.ranges import Range, Ranges

_MOST = 1 << 20  # ranges at a time


class Homeward:
    """Read-backs between their request and their landing, which may be told in parts.

    Several may be under way to the same bytes, which are home when each of them is. Which of them a
    landing belongs to does not matter for that.
    """

    def __init__(self) -> None:
        self._ranges = Ranges(_MOST)
        self._missing: Counter[Range] = Counter()

    def expect(self, key: Range) -> None:
        """A read-back into this range was asked for."""
        self._missing[key] += 1
        crowded_out = self._ranges.add(key)
        if crowded_out is not None:
            del self._missing[crowded_out]

    def landed(self, key: Range) -> None:
        """The bytes of a read-back, or of a part of one, are there."""
        if key in self._missing:
            self._remove(key)
            return
        address, end = key[0], key[0] + key[1]
        while address < end:
            # One of those that cover this byte, up to where it ends.
            over = self._ranges.overlapping(address, end - address)
            if not over:
                return
            start, nbytes = min(over, key=lambda each: max(each[0], address))
            self._remove((start, nbytes))
            address = max(start, address)
            until = min(start + nbytes, end)
            if start < address:
                self.expect((start, address - start))
            if until < start + nbytes:
                self.expect((until, start + nbytes - until))
            address = until

    def covers(self, key: Range) -> bool:
        """Whether a byte of this range is yet to be written."""
        return bool(self._missing) and bool(self._ranges.overlapping(*key))

    def _remove(self, key: Range) -> None:
        self._missing[key] -= 1
        if not self._missing[key]:
            del self._missing[key]
            self._ranges.discard(key)
