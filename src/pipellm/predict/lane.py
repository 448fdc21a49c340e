"""A lane: swaps that belong together, and the patterns that compete to explain them."""

from __future__ import annotations

from collections.abc import Sequence

from pipellm.predict.prediction import SURE, Pattern, Prediction
from pipellm.transfers import Transfer


class Lane:
    """Follows the pattern that has been right of late.

    Among the patterns that say *what* comes and are sure of it, the one speaks that reaches
    farthest: in the middle of a burst FIFO and LIFO agree on what is next, and may both be sure. If
    none is sure, the last resort may speak, if there is one, which says only what size comes. If
    that is not sure either, nobody does.
    """

    def __init__(self, patterns: Sequence[Pattern], last_resort: Pattern | None = None) -> None:
        self._patterns = tuple(patterns)
        self._last_resort = last_resort

    @property
    def speaker(self) -> Pattern | None:
        """The pattern that speaks now, if any is sure."""
        speaker: Pattern | None = None
        for pattern in self._patterns:
            if pattern.confidence >= SURE and (speaker is None or pattern.reach > speaker.reach):
                speaker = pattern
        if speaker is None:
            last = self._last_resort
            if last is not None and last.confidence >= SURE:
                return last
        return speaker

    @property
    def names_buffers(self) -> bool:
        """Whether it says now which buffers come, rather than sizes or nothing."""
        return any(pattern.confidence >= SURE for pattern in self._patterns)

    def observe(self, transfer: Transfer, gap: int) -> None:
        """A swap of this lane happened."""
        for pattern in self._patterns:
            pattern.observe(transfer, gap)
        if self._last_resort:
            self._last_resort.observe(transfer, gap)

    def predict(self, n: int) -> list[Prediction]:
        """The next `n` swap-ins of this lane, with the confidence of one step each."""
        speaker = self.speaker
        return speaker.predict(n) if speaker else []

    def forget(self, address: int, nbytes: int) -> None:
        """This buffer is gone."""
        for pattern in self._patterns:
            pattern.forget(address, nbytes)

    def sync(self) -> None:
        """The program synchronised."""
        for pattern in self._patterns:
            pattern.sync()
