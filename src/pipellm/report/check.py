"""What `pipellm simulate --check --json` wrote, as a section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Struct

from pipellm.input import MOST_ROWS, Figure, Positive, checked
from pipellm.report.section import Cell, Mark, Section, Table, has_rows_with, unfinished


class Row(Struct):
    """One workload under one policy."""

    workload: str
    policy: str
    profile: str
    measured: Positive
    simulated: Figure


class Document(Struct):
    """The file."""

    host: dict[str, Figure]
    limit: Figure
    rows: Annotated[list[Row], MOST_ROWS]
    complete: bool = True


def wrote(document: Mapping[str, Any]) -> bool:
    """Whether a check of the simulation wrote it."""
    return has_rows_with(document, "simulated", "measured")


def section(source: str, document: Mapping[str, Any]) -> Section:
    """Raises ValueError if the file is of another version."""
    found = checked(document, Document)
    return Section(
        title="The simulation held against measurement",
        source=source,
        facts=(
            ("host", ", ".join(f"{name} {value:g}" for name, value in found.host.items())),
            ("allowed", f"{found.limit:.0%} apart"),
            ("measured", "units/s of the part replayed, fastest repetition"),
            *unfinished(found.complete),
        ),
        tables=(
            Table(
                ("workload", "policy", "profile", "measured", "simulated", "apart"),
                tuple(_row(row) for row in found.rows),
                grouped=1,
            ),
        ),
    )


def _row(row: Row) -> tuple[Cell, ...]:
    return (
        *(Cell(row.workload), Cell(row.policy), Cell(row.profile)),
        Cell(f"{row.measured:.4g}", Mark.MODELLED),
        Cell(f"{row.simulated:.4g}", Mark.SIMULATED),
        Cell(f"{row.simulated / row.measured - 1:+.0%}", Mark.SIMULATED),
    )
