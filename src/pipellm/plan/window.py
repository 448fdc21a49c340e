"""The window: how many chunks to keep sealed ahead."""

from __future__ import annotations

_FIRST = 64
_LEAST = 16
_LONGEST_PAUSE = 1024


class Window:
    """Grows when a request overtakes its sealing, shrinks when sealed chunks had to be dropped.

    As in congestion control: far ahead pays only while requests are quicker than sealing, and all
    that is ahead is at stake when a prediction fails. Never more than the memory budget. Where the
    shell cannot seal at all the window closes for 1, 3, 7, ... 1023 requests.
    """

    def __init__(self, budget_chunks: int) -> None:
        self._most = budget_chunks
        self._least = min(_LEAST, budget_chunks)
        self.chunks = min(_FIRST, budget_chunks)
        self._pause = 0
        self._closed = 0

    def grow(self) -> None:
        """A request came before its chunks were sealed."""
        self.chunks = min(2 * self.chunks, self._most)

    def shrink(self) -> None:
        """Sealed chunks were dropped."""
        self.chunks = max(self.chunks // 2, self._least)

    @property
    def closed(self) -> bool:
        """Whether nothing more is to be sealed ahead for now."""
        return self._closed > 0

    def close(self) -> None:
        """The shell could not do what it was asked to."""
        if not self._closed:
            self._pause = min(2 * self._pause + 1, _LONGEST_PAUSE - 1)
            self._closed = self._pause

    def request(self) -> None:
        """A swap-in was requested."""
        self._closed = max(self._closed - 1, 0)

    def hit(self) -> None:
        """It was sealed ahead: the shell is well."""
        self._pause = 0
