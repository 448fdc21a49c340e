"""The repetitive pattern: the same swap-ins over and over, as offloaded weights make them.

Seen two ways. By *place* (address and size) it says which bytes come next, so that they can be
sealed ahead. By *size* alone (ordinal and size: the n-th transfer of the period has this size) it
survives buffers that are somewhere else every time, as FlexGen's are when its weights are not
pinned. Such a prediction has no address: it says how many IVs the next swap takes and how many
small transfers come before it, which places the IVs of what follows, but there is nothing to seal.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from pipellm.predict.echo import Echo
from pipellm.predict.prediction import Prediction
from pipellm.transfers import Direction, Transfer


class By(Enum):
    """What two transfers must have in common to be the same one."""

    PLACE = "repetitive"
    SIZE = "sizes"


_D2H = Direction.D2H  # an enumeration's members are slow to look up


class _Seen(NamedTuple):
    address: int
    nbytes: int
    stream: int
    gap: int


class Repetitive:
    """Follows a sequence of swap-ins that repeats, with any period and any order inside."""

    def __init__(self, by: By = By.PLACE, capacity: int = 1 << 14) -> None:
        self.name = by.value
        self._by_place = by is By.PLACE
        self._echo = Echo(capacity)
        self._capacity = capacity
        self._past: list[_Seen] = []

    @property
    def confidence(self) -> float:
        """How sure it is of the next swap-in."""
        return self._echo.record.confidence

    @property
    def reach(self) -> float:
        """As sure of what is far as of what is near."""
        return self.confidence

    def observe(self, transfer: Transfer, gap: int) -> None:
        """A swap happened; only swap-ins matter."""
        if transfer.direction == _D2H:
            return
        address, nbytes = transfer.address, transfer.nbytes
        seen = _Seen(address, nbytes, transfer.stream, gap)
        index = self._echo.count
        if index < self._capacity:
            self._past.append(seen)
        else:
            self._past[index % self._capacity] = seen
        self._echo.observe(hash((address, nbytes)) if self._by_place else hash((nbytes,)))

    def predict(self, n: int) -> list[Prediction]:
        """What came next when the sequence was here before."""
        echo, past, capacity, confidence = self._echo, self._past, self._capacity, self.confidence
        predictions = []
        for index in echo.ahead(n):
            address, nbytes, stream, gap = past[index % capacity]
            known = self._by_place and not echo.fleeting(index)
            predictions.append(
                Prediction(address if known else None, nbytes, stream, gap, confidence, self.name)
            )
        return predictions

    def forget(self, address: int, nbytes: int) -> None:
        """Nothing to do: whoever predicts leaves out what is gone."""

    def sync(self) -> None:
        """Nothing to do: a period does not care for batches."""
