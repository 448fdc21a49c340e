"""Whether it is worth while to prefetch: a credit in bytes."""

from __future__ import annotations

FIRST = 256 << 20
"""What may be ordered before anything has been of use."""
_GAIN = 3  # so guesses may go on while more than a third of the bytes are asked for
_PAUSE = 64  # swap-ins before the first trial
_LONGEST = 4096


class Worth:
    """Each order spends its bytes, and those that are asked for come back threefold.

    So what is prefetched in vain is at most FIRST and twice what was of use, and a phase of bad
    guesses ends after `most` at the latest, however well it went before. With the credit used up
    nothing is ordered but a trial, of one transfer, after 64, 128, ... 4096 swap-ins.
    """

    def __init__(self, trial: int) -> None:
        self.credit = FIRST
        """Bytes that may be ordered now; never negative."""
        self.most = FIRST
        """What the credit may come to."""
        self._trial = trial
        self._pause = _PAUSE
        self._passed = 0

    def ordered(self, nbytes: int) -> None:
        """Pieces were ordered."""
        self.credit = max(self.credit - nbytes, 0)

    def returned(self, nbytes: int) -> None:
        """Some of them ended before they were transferred, and cost nothing."""
        self._earn(nbytes)

    def used(self, nbytes: int) -> None:
        """Bytes that had been transferred were asked for."""
        self._earn(_GAIN * nbytes)
        self._pause = _PAUSE

    def changed(self, nbytes: int) -> None:
        """Some of these had changed: they were of no use."""
        self.credit = max(self.credit - _GAIN * nbytes, 0)

    def swap_in(self) -> None:
        """A swap-in was asked for, whether it was there or not."""
        if self.credit >= self._trial:
            self._passed = 0
            return
        self._passed += 1
        if self._passed >= self._pause:
            self._passed = 0
            self._pause = min(2 * self._pause, _LONGEST)
            self.credit = self._trial

    def _earn(self, nbytes: int) -> None:
        self.credit = min(self.credit + nbytes, max(self.most, self.credit))
