"""A profile's tables, which complain in one line about what they do not hold."""

from __future__ import annotations

import reprlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from math import inf, isfinite
from typing import TypeGuard

from pipellm.errors import UserError


@dataclass(frozen=True, slots=True)
class Curve:
    """Microseconds against bytes: straight lines between knots, the last one's slope beyond."""

    knots: tuple[tuple[int, float], ...]
    """(bytes, microseconds): from 0 bytes on, bytes increasing, microseconds never falling."""

    def microseconds(self, nbytes: int) -> float:
        if len(self.knots) == 1:
            return self.knots[0][1]
        right = bisect_left(self.knots, nbytes, lo=1, hi=len(self.knots) - 1, key=lambda k: k[0])
        (x0, y0), (x1, y1) = self.knots[right - 1], self.knots[right]
        return y0 + (y1 - y0) * (nbytes - x0) / (x1 - x0)


MOST = 10**12
"""No quantity of a profile is larger: not bytes, nor microseconds, nor operations by the tera."""

_shown = reprlib.Repr().repr
"""What was found instead: enough of it to be recognised."""


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[int | float]:
    return _is_integer(value) or (isinstance(value, float) and isfinite(value))


class Table:
    """One table of a profile; its path within the file is part of what it complains of."""

    def __init__(self, file: str, path: str, values: Mapping[str, object]) -> None:
        self._file = file
        self._path = path
        self._values = values
        self._known: list[str] = []

    def __contains__(self, key: str) -> bool:
        self._known.append(key)
        return key in self._values

    @contextmanager
    def checked(self) -> Iterator[Table]:
        """Complains at the end about fields that nobody asked for."""
        yield self
        for key in self._values:
            if key not in self._known:
                nearest = get_close_matches(key, self._known, n=1)
                hint = f"; did you mean {nearest[0]}?" if nearest else ""
                raise self._fault(key, f"no such field{hint}")

    def table(self, key: str) -> Table:
        value = self._get(key, "a table")
        if not isinstance(value, dict):
            raise self._fault(key, f"expected a table, not {_shown(value)}")
        return Table(self._file, self._name(key), value)

    def text(self, key: str) -> str:
        value = self._get(key, "a string")
        if not isinstance(value, str) or not value:
            raise self._fault(key, f"expected a string that is not empty, not {_shown(value)}")
        return value

    def boolean(self, key: str) -> bool:
        value = self._get(key, "true or false")
        if not isinstance(value, bool):
            raise self._fault(key, f"expected true or false, not {_shown(value)}")
        return value

    def number(self, key: str, *, positive: bool = False, most: int = MOST) -> float:
        expected = "a number above 0" if positive else "a number from 0 up"
        value = self._get(key, expected, most)
        if not _is_number(value) or value < 0 or (positive and value == 0):
            raise self._fault(key, f"expected {expected}, not {_shown(value)}")
        return float(value)

    def share(self, key: str) -> float:
        expected = "a number above 0, at most 1"
        value = self._get(key, expected)
        if not _is_number(value) or not 0 < value <= 1:
            raise self._fault(key, f"expected {expected}, not {_shown(value)}")
        return float(value)

    def integer(self, key: str) -> int:
        value = self._get(key, "a whole number above 0")
        if not _is_integer(value) or value < 1:
            raise self._fault(key, f"expected a whole number above 0, not {_shown(value)}")
        return value

    def pair(self, key: str) -> tuple[int, int]:
        expected = "two whole numbers such as [9, 0]"
        value = self._get(key, expected)
        match value:
            case [major, minor] if _is_integer(major) and _is_integer(minor):
                if major >= 0 and minor >= 0:
                    return major, minor
        raise self._fault(key, f"expected {expected}, not {_shown(value)}")

    def curve(self, key: str) -> Curve:
        expected = "knots [[bytes, microseconds], ...]"
        value = self._get(key, expected)
        if not isinstance(value, list) or not value:
            raise self._fault(key, f"expected {expected}, not {_shown(value)}")
        knots: list[tuple[int, float]] = []
        for number, knot in enumerate(value, start=1):
            match knot:
                case [size, time] if _is_integer(size) and _is_number(time):
                    pass
                case _:
                    raise self._fault(
                        key, f"knot {number}: expected [bytes, microseconds], not {_shown(knot)}"
                    )
            if size < 0 or time < 0:
                raise self._fault(
                    key, f"knot {number}: expected numbers from 0 up, not {_shown(knot)}"
                )
            if not knots and size != 0:
                raise self._fault(key, f"knot 1: expected to be at 0 bytes, not {size}")
            if knots and size <= knots[-1][0]:
                raise self._fault(
                    key, f"knot {number}: expected more than {knots[-1][0]} bytes, not {size}"
                )
            if knots and time < knots[-1][1]:
                raise self._fault(
                    key,
                    f"knot {number}: expected {knots[-1][1]:g} microseconds or more, not {time}",
                )
            knots.append((size, float(time)))
        return Curve(tuple(knots))

    def _get(self, key: str, expected: str, most: int = MOST) -> object:
        self._known.append(key)
        if key not in self._values:
            raise self._fault(key, f"missing; expected {expected}")
        value = self._values[key]
        self._require_size(key, value, most)
        return value

    def _require_size(self, key: str, value: object, most: int) -> None:
        if isinstance(value, list):
            for part in value:
                self._require_size(key, part, most)
        elif isinstance(value, int | float) and most < abs(value) < inf:
            raise self._fault(key, f"expected at most {most:,}, not {_shown(value)}")

    def _name(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def _fault(self, key: str, what: str) -> UserError:
        return UserError(f"profile {self._file}: {self._name(key)}: {what}")
