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

    __slots__ = ("_below", "_credit", "_level", "_right", "_tried", "confidence", "run")

    def __init__(self, credit: float = 0.0) -> None:
        self.run = 0
        """How many guesses in a row have been right."""
        self.confidence = credit
        """The share of guesses that come true after a run like this one, in [0, 1)."""
        self._credit = credit
        self._level = 0  # of this run
        self._below = credit  # the estimate of the level below; it stands while the run goes on
        self._right = [0] * _LEVELS
        self._tried = [0] * _LEVELS

    def right(self) -> None:
        """The last guess came true."""
        level = self._level
        self._try(level)
        self._right[level] += 1
        self.run += 1
        if self.run >> level and level < _LEVELS - 1:
            self._below = self._estimate(level)
            self._level = level = level + 1
        self.confidence = self._estimate(level)

    def wrong(self) -> None:
        """The last guess did not come true."""
        self._try(self._level)
        self.run = self._level = 0
        self._below = self._credit
        self.confidence = self._estimate(0)

    def _try(self, level: int) -> None:
        if self._tried[level] == _MEMORY:  # forget slowly, so that the present outweighs the past
            self._tried[level] //= 2
            self._right[level] //= 2
        self._tried[level] += 1

    def _estimate(self, level: int) -> float:
        return (self._right[level] + 2 * self._below) / (self._tried[level] + 2)
