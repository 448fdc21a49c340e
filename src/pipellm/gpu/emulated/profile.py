"""Profiles: what one emulated GPU and its link are like, in numbers. TOML in, frozen values out.

    name = "NVIDIA H100 80GB HBM3"   # what a program is told the device is
    memory_gib = 80
    capability = [9, 0]
    multiprocessors = 132
    clock_mhz = 1980

    [off]                            # confidential computing off; [on] has the same fields
    launch_us = 4.9                  # host time of a kernel launch, and of issuing an async command
    duplex = true                    # an engine for each direction, or one timeline for both

    [off.h2d.pinned]                 # likewise off.h2d.pageable, off.d2h.pinned, ...
    engine_us = [[0, 0.9], [67109000, 1559.6]]
    call_us = [[0, 9.1], [67109000, 1617.3]]

`engine_us` is how long a copy occupies the copy engine, `call_us` how long a blocking call takes on
the calling thread, the engine's time included. Both are knots `[bytes, microseconds]`.

Under `on`, `call_us` may be missing: then a call takes what this host's own sealing takes, after
`toll_us`, the fixed host time of a crossing, whatever its size, the call's own base cost included
and the engine's time not. Where `call_us` is given it is a floor, for a modelled host that seals
slower than this one; it contains the toll, which `toll_us` still states apart.

Everything is checked on loading; what is wrong raises UserError naming the file and the field.
"""

from __future__ import annotations

import tomllib
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import TypeGuard

from pipellm.errors import UserError, unknown

PROFILES = Path(__file__).parent / "profiles"


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


@dataclass(frozen=True, slots=True)
class Cost:
    """What one copy costs, by its size."""

    engine: Curve
    call: Curve | None
    toll_us: float
    """0 with confidential computing off."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What the copies of one direction cost, by the kind of host memory."""

    pinned: Cost
    pageable: Cost


@dataclass(frozen=True, slots=True)
class Link:
    """The way between host and device in one mode of confidential computing."""

    launch_us: float
    duplex: bool
    h2d: Costs
    d2h: Costs


@dataclass(frozen=True, slots=True)
class Profile:
    """One modelled GPU in its host."""

    source: str
    """The package's name for it, or its file."""
    name: str
    """What a program is told the device is."""
    memory_gib: float
    capability: tuple[int, int]
    multiprocessors: int
    clock_mhz: int
    off: Link
    on: Link

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_gib * (1 << 30))

    def link(self, confidential: bool) -> Link:
        return self.on if confidential else self.off


def names() -> tuple[str, ...]:
    """The profiles of the package."""
    return tuple(sorted(path.stem for path in PROFILES.glob("*.toml")))


def canonical(profile: str) -> str:
    """`profile` as any directory understands it: a name of the package's, or an absolute path.

    Raises UserError if there is no such profile.
    """
    if profile.endswith(".toml"):
        if not Path(profile).is_file():
            raise UserError(f"profile {profile}: no such file")
        return str(Path(profile).absolute())
    if profile not in names():
        raise unknown("profile", profile, [*names(), "FILE.toml"])
    return profile


def load(profile: str) -> Profile:
    """The profile of that name or file; raises UserError if it is missing or has a fault."""
    source = canonical(profile)
    path = Path(source) if source.endswith(".toml") else PROFILES / f"{source}.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"profile {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"profile {path.name}: not TOML: {error}") from None
    with _Table(path.name, "", document).checked() as top:
        return Profile(
            source=source,
            name=top.text("name"),
            memory_gib=top.number("memory_gib", positive=True),
            capability=top.pair("capability"),
            multiprocessors=top.integer("multiprocessors"),
            clock_mhz=top.integer("clock_mhz"),
            off=_link(top, "off"),
            on=_link(top, "on"),
        )


def _link(parent: _Table, mode: str) -> Link:
    with parent.table(mode).checked() as table:
        return Link(
            launch_us=table.number("launch_us"),
            duplex=table.boolean("duplex"),
            h2d=_costs(table, "h2d", mode),
            d2h=_costs(table, "d2h", mode),
        )


def _costs(parent: _Table, name: str, mode: str) -> Costs:
    with parent.table(name).checked() as table:
        return Costs(_cost(table, "pinned", mode), _cost(table, "pageable", mode))


def _cost(parent: _Table, name: str, mode: str) -> Cost:
    with parent.table(name).checked() as table:
        engine = table.curve("engine_us")
        if mode == "off":
            return Cost(engine, table.curve("call_us"), 0.0)
        call = table.curve("call_us") if "call_us" in table else None
        return Cost(engine, call, table.number("toll_us"))


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[int | float]:
    return _is_integer(value) or (isinstance(value, float) and isfinite(value))


class _Table:
    """One table of a profile, which complains in one line about what it does not hold."""

    def __init__(self, file: str, path: str, values: Mapping[str, object]) -> None:
        self._file = file
        self._path = path
        self._values = values
        self._known: list[str] = []

    def __contains__(self, key: str) -> bool:
        self._known.append(key)
        return key in self._values

    @contextmanager
    def checked(self) -> Iterator[_Table]:
        """Complains at the end about fields that nobody asked for."""
        yield self
        for key in self._values:
            if key not in self._known:
                nearest = get_close_matches(key, self._known, n=1)
                hint = f"; did you mean {nearest[0]}?" if nearest else ""
                raise self._fault(key, f"no such field{hint}")

    def table(self, key: str) -> _Table:
        value = self._get(key, "a table")
        if not isinstance(value, dict):
            raise self._fault(key, f"expected a table, not {value!r}")
        return _Table(self._file, self._name(key), value)

    def text(self, key: str) -> str:
        value = self._get(key, "a string")
        if not isinstance(value, str) or not value:
            raise self._fault(key, f"expected a string that is not empty, not {value!r}")
        return value

    def boolean(self, key: str) -> bool:
        value = self._get(key, "true or false")
        if not isinstance(value, bool):
            raise self._fault(key, f"expected true or false, not {value!r}")
        return value

    def number(self, key: str, *, positive: bool = False) -> float:
        expected = "a number above 0" if positive else "a number from 0 up"
        value = self._get(key, expected)
        if not _is_number(value) or value < 0 or (positive and value == 0):
            raise self._fault(key, f"expected {expected}, not {value!r}")
        return float(value)

    def integer(self, key: str) -> int:
        value = self._get(key, "a whole number above 0")
        if not _is_integer(value) or value < 1:
            raise self._fault(key, f"expected a whole number above 0, not {value!r}")
        return value

    def pair(self, key: str) -> tuple[int, int]:
        expected = "two whole numbers such as [9, 0]"
        value = self._get(key, expected)
        match value:
            case [major, minor] if _is_integer(major) and _is_integer(minor):
                if major >= 0 and minor >= 0:
                    return major, minor
        raise self._fault(key, f"expected {expected}, not {value!r}")

    def curve(self, key: str) -> Curve:
        expected = "knots [[bytes, microseconds], ...]"
        value = self._get(key, expected)
        if not isinstance(value, list) or not value:
            raise self._fault(key, f"expected {expected}, not {value!r}")
        knots: list[tuple[int, float]] = []
        for number, knot in enumerate(value, start=1):
            match knot:
                case [size, time] if _is_integer(size) and _is_number(time):
                    pass
                case _:
                    raise self._fault(
                        key, f"knot {number}: expected [bytes, microseconds], not {knot!r}"
                    )
            if size < 0 or time < 0:
                raise self._fault(key, f"knot {number}: expected numbers from 0 up, not {knot!r}")
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

    def _get(self, key: str, expected: str) -> object:
        self._known.append(key)
        if key not in self._values:
            raise self._fault(key, f"missing; expected {expected}")
        return self._values[key]

    def _name(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def _fault(self, key: str, what: str) -> UserError:
        return UserError(f"profile {self._file}: {self._name(key)}: {what}")
