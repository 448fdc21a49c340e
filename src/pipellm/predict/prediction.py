"""What a pattern says about the future, and what every pattern can do."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from pipellm.transfers import Transfer

SURE = 0.6
"""A pattern with less confidence claims nothing. Above one half by a clear margin: one that tosses
a coin between two buffers is right half of the time."""


class Prediction(NamedTuple):
    """One swap-in that is expected, in the order of the list that it is in."""

    address: int | None
    """The host address; None if only a transfer of this size is expected. It then takes its IVs,
    but there is nothing yet that could be sealed."""
    nbytes: int
    stream: int
    gap: int
    """How many messages of other transfers are expected right before it, on any stream."""
    confidence: float
    """How likely it is that this and everything before it in the list comes true."""
    pattern: str
    """Name of the pattern that says so."""


class Pattern(Protocol):
    """A guess at the order of swap-ins, told every swap in the order it was asked for."""

    @property
    def confidence(self) -> float:
        """How likely the first of `predict` is to come true, in [0, 1)."""

    @property
    def reach(self) -> float:
        """How likely it is to be right where it may go wrong at all; decides between patterns."""

    def observe(self, transfer: Transfer, gap: int) -> None:
        """A swap happened, `gap` messages of small transfers after the last swap-in."""

    def predict(self, n: int) -> list[Prediction]:
        """At most the next `n` swap-ins, soonest first, whatever the confidence.

        The predictions carry the confidence of one step each.
        """

    def forget(self, address: int, nbytes: int) -> None:
        """This very buffer is gone."""

    def sync(self) -> None:
        """The program synchronised: what it asked for before and after are two batches."""
