"""Whether it pays to let a request wait for others of its batch."""

from __future__ import annotations

_MOST = 8
_GAIN = 2
_RETRY = 16


class Patience:
    """Learns whether what a request waits for really comes.

    Where threads or streams race, the others come a moment later and every wait saves a gap. Where
    a program left something out, nobody comes, and each wait only makes the request late. Every
    wait that paid buys two more; without credit, one in sixteen is tried.
    """

    def __init__(self) -> None:
        self._credit = _MOST // 2
        self._declined = 0

    def waits(self) -> bool:
        """Whether the next request should wait."""
        if self._credit > 0:
            return True
        self._declined = (self._declined + 1) % _RETRY
        return self._declined == 0

    def paid(self) -> None:
        """What a request waited for has come."""
        self._credit = min(self._credit + _GAIN, _MOST)

    def in_vain(self) -> None:
        """It has not."""
        self._credit = max(self._credit - 1, 0)
