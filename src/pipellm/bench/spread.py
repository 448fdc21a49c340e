"""Repetitions of one figure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of repetitions, the least and the most."""

    median: float
    least: float
    most: float

    @staticmethod
    def of(values: Iterable[float]) -> Spread:
        ordered = sorted(values)
        return Spread(median(ordered), ordered[0], ordered[-1])

    def __format__(self, form: str) -> str:
        return f"{self.median:{form}} ({self.least:{form}} to {self.most:{form}})"


def amount_form(amount: float) -> str:
    """How to format units per second of about this size: three digits at least, no exponent."""
    return ",.0f" if amount >= 100 else ".3g"
