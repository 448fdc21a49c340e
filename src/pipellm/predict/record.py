"""A pattern's track record: how sure it may be of its next guess."""

from __future__ import annotations

_LEVELS = 8
_MEMORY = 128


class Record:
    """How often a pattern was right, told apart by how long it had been right before.

    A bare hit rate is slow after a change of phase and blind to luck. A run of right guesses says
    more: in a random order of many buffers runs stay at nought or one, in a period they grow
    without end. So each level (runs of 0, 1, 2-3, 4-7, ... 64 and more) keeps its own hit rate,
    and starts from the estimate of the level below as if from two guesses. A wrong guess falls back
    to level 0 at once, and what has been learned about longer runs is there again when the run is.
    Below level 0 stands `credit`: what a pattern is believed before it has shown anything.
    """

    __slots__ = ("_credit", "_right", "_tried", "confidence", "run")

    def __init__(self, credit: float = 0.0) -> None:
        self.run = 0
        """How many guesses in a row have been right."""
        self.confidence = credit
        """The share of guesses that come true after a run like this one, in [0, 1)."""
        self._credit = credit
        self._right = [0] * _LEVELS
        self._tried = [0] * _LEVELS

    def right(self) -> None:
        """The last guess came true."""
        self._right[self._try()] += 1
        self.run += 1
        self._estimate()

    def wrong(self) -> None:
        """The last guess did not come true."""
        self._try()
        self.run = 0
        self._estimate()

    def _level(self) -> int:
        return min(self.run.bit_length(), _LEVELS - 1)

    def _try(self) -> int:
        level = self._level()
        if self._tried[level] == _MEMORY:  # forget slowly, so that the present outweighs the past
            self._tried[level] //= 2
            self._right[level] //= 2
        self._tried[level] += 1
        return level

    def _estimate(self) -> None:
        estimate = self._credit
        for level in range(self._level() + 1):
            estimate = (self._right[level] + 2 * estimate) / (self._tried[level] + 2)
        self.confidence = estimate
