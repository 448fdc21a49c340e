"""The leeway: how many IVs to leave free for small transfers beyond those expected."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict, deque
from math import ceil

from pipellm.predict import Prediction

FIRST_GUESS = 32
"""Before anything was seen (facts: the published prototype's constant)."""

_ENOUGH = 4
_MEMORY = 64
_ANY = ""


class Leeway:
    """Learns how far predictions are off about the small transfers before a swap-in.

    An IV too few costs a resealing, an IV too many a NOP. The cheapest margin between them is the
    quantile of past errors at resealing / (resealing + NOP), known as the newsvendor's. Where small
    transfers keep a pattern the errors are nought and so is the margin. It is negative where
    predictions are always too high. Each pattern has errors of its own, and swap-ins that follow
    each other closely have others than those that small transfers come before. Until a pattern has
    shown its own, all patterns' stand for them.
    """

    def __init__(self) -> None:
        self._errors: defaultdict[tuple[str, bool], _Errors] = defaultdict(_Errors)

    def learn(self, foreseen: Prediction, surplus: int) -> None:
        """So many more messages came before a swap-in than were expected."""
        for pattern in (foreseen.pattern, _ANY):
            self._errors[pattern, foreseen.gap > 0].add(surplus)

    def margin(self, item: Prediction, overrun_ns: int, nop_ns: int) -> int:
        """IVs to leave free beyond the gap expected, given what an overrun and a NOP cost."""
        for pattern in (item.pattern, _ANY):
            errors = self._errors[pattern, item.gap > 0]
            if errors.enough:
                return errors.quantile(overrun_ns / max(overrun_ns + nop_ns, 1))
        return FIRST_GUESS


class _Errors:
    """The last few errors, in order of size."""

    def __init__(self) -> None:
        self._recent: deque[int] = deque()
        self._sorted: list[int] = []

    def add(self, surplus: int) -> None:
        if len(self._recent) == _MEMORY:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]
        self._recent.append(surplus)
        insort(self._sorted, surplus)

    @property
    def enough(self) -> bool:
        return len(self._sorted) >= _ENOUGH

    def quantile(self, share: float) -> int:
        return self._sorted[max(ceil(share * len(self._sorted)) - 1, 0)]
