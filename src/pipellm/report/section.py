"""What a page of results is made of. Every number on it carries where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Any


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
    spread: str = ""
    """Of repetitions: least and most."""

    def __str__(self) -> str:
        return f"{self.text} ({self.spread})" if self.spread else self.text


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of as many cells as there are columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""
    grouped: int = 0
    """So many of the first columns say what several rows have in common."""

    @property
    def groups(self) -> list[tuple[str, list[tuple[Cell, ...]]]]:
        """What rows in a row have in common, and their other cells."""
        return [
            (", ".join(common), [row[self.grouped :] for row in rows])
            for common, rows in groupby(
                self.rows, lambda row: tuple(cell.text for cell in row[: self.grouped])
            )
        ]

    @property
    def heads(self) -> list[tuple[str, Mark | None]]:
        """The other columns' names, and where their numbers came from."""
        return [
            (name, next((row[index].mark for row in self.rows if row[index].mark), None))
            for index, name in enumerate(self.columns)
        ][self.grouped :]


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


def has_rows_with(document: Mapping[str, Any], *names: str) -> bool:
    """Whether a document has rows, and these names in the first: how kinds of files are told."""
    match document:
        case {"rows": [dict() as first, *_]}:
            return all(name in first for name in names)
    return False


def unfinished(complete: bool) -> tuple[tuple[str, str], ...]:
    """The fact that the rest is missing, if it is."""
    return () if complete else (("not complete", "the work was stopped; these rows were done"),)
