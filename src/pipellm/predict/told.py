"""What the program itself said: these swap-ins come next, in this order.

A program that schedules its swaps may know better than any pattern what comes next (a serving
system knows which request it will resume first). It says so in *groups*: what will be swapped in
together. Its word counts at first, and then as much as it has been worth: like any pattern, it is
silent after wrong guesses until it has been right again.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipellm.predict.prediction import Prediction
from pipellm.predict.ranges import Range
from pipellm.predict.record import Record
from pipellm.transfers import Direction, Transfer

_CREDIT = 0.95


class Told:
    """Expects what it was told, group by group."""

    def __init__(self) -> None:
        self.name = "told"
        self._starts = Record(_CREDIT)  # of the first of each group
        self._within = Record(_CREDIT)  # of the others
        self._groups: list[list[Range]] = []
        self._begun = False  # whether some of the first group has come
        self._first_gap = 0  # messages before the first of a group, as of late
        self._next_gap = 0  # messages before the others
        self._stream = 0

    @property
    def confidence(self) -> float:
        """How sure it is of the next swap-in."""
        if not self._groups:
            return 0.0
        return (self._within if self._begun else self._starts).confidence

    @property
    def reach(self) -> float:
        """How sure it is of the next group."""
        return self._starts.confidence if self._groups else 0.0

    def tell(self, groups: Iterable[Iterable[Range]]) -> None:
        """From here on this is what comes next, and nothing of what was said before.

        If it begins with the rest of a group of which some has come, that goes on.
        """
        rest = self._groups[0] if self._begun else None
        self._groups = [members for group in groups if (members := list(dict.fromkeys(group)))]
        self._begun = bool(self._groups) and self._groups[0] == rest

    def observe(self, transfer: Transfer, gap: int) -> None:
        """A swap happened; only swap-ins matter."""
        if transfer.direction is Direction.D2H or not self._groups:
            return
        key = (transfer.address, transfer.nbytes)
        record = self._within if self._begun else self._starts
        at = next((i for i, group in enumerate(self._groups) if key in group), None)
        if at is None:
            record.wrong()
            return
        group = self._groups[at]
        if self._groups[0][0] == key:
            record.right()
        else:
            record.wrong()
        if self._begun and at == 0:
            self._next_gap = gap
        else:
            self._first_gap = gap
        self._stream = transfer.stream
        rest = group[group.index(key) + 1 :]
        self._groups[: at + 1] = [rest] if rest else []
        self._begun = bool(rest)

    def predict(self, n: int) -> list[Prediction]:
        """The next of what was told."""
        starts, within = self._starts.confidence, self._within.confidence
        predictions: list[Prediction] = []
        first = not self._begun
        for group in self._groups:
            for address, nbytes in group:
                gap, confidence = (self._first_gap, starts) if first else (self._next_gap, within)
                predictions.append(
                    Prediction(address, nbytes, self._stream, gap, confidence, self.name)
                )
                if len(predictions) == n:
                    return predictions
                first = False
            first = True
        return predictions

    def forget(self, address: int, nbytes: int) -> None:
        """This buffer is gone."""
        left = [[item for item in group if item != (address, nbytes)] for group in self._groups]
        if left and not left[0]:
            self._begun = False
        self._groups = [group for group in left if group]

    def sync(self) -> None:
        """Nothing to do: groups are told, not guessed."""
