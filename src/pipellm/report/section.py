"""What a page of results is made of. Every number on it carries where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mark(StrEnum):
    """Where a number came from."""

    MEASURED = "measured"
    """Taken on the machine that the section names."""
    MODELLED = "modelled"
    """Real sealing and planning in real time, beside a modelled link and modelled computing."""
    SIMULATED = "simulated"
    """Came out of a simulation in virtual time."""
    PUBLISHED = "published"
    """Quoted from the paper."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One entry of a table; `mark` is None for what is no measurement (names, settings)."""

    text: str
    mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of as many cells as there are columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture, as the text of an SVG element, and what to say for those who cannot see it."""

    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class Section:
    """One file's results."""

    title: str
    source: str
    """The file's name."""
    facts: tuple[tuple[str, str], ...]
    """Name and value: the machine, the versions, the profile, the command."""
    tables: tuple[Table, ...]
    plots: tuple[Plot, ...] = ()
