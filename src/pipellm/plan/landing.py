"""Host memory that swap-outs are about to write."""

from __future__ import annotations

from collections import Counter

from pipellm.predict.ranges import Range, Ranges
from pipellm.transfers import Transfer


class Landing:
    """Swap-outs between their request and their landing. What they cover is not worth sealing."""

    def __init__(self) -> None:
        self._ranges = Ranges()
        self._pending: Counter[Range] = Counter()

    def expect(self, transfer: Transfer) -> None:
        """A swap-out was requested."""
        key = (transfer.address, transfer.nbytes)
        self._pending[key] += 1
        crowded_out = self._ranges.add(key)
        if crowded_out is not None:
            del self._pending[crowded_out]

    def landed(self, transfer: Transfer) -> None:
        """Its bytes are there."""
        key = (transfer.address, transfer.nbytes)
        if self._pending[key] > 1:
            self._pending[key] -= 1
        else:
            del self._pending[key]
            self._ranges.discard(key)

    def covers(self, key: Range) -> bool:
        """Whether a byte of this buffer is yet to be written."""
        return bool(self._pending) and bool(self._ranges.overlapping(*key))
