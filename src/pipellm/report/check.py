"""What `pipellm simulate --check --json` wrote, as a section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipellm.report.section import Cell, Mark, Section, Table


def wrote(document: Mapping[str, Any]) -> bool:
    """Whether a check of the simulation wrote it."""
    return any("simulated" in row and "measured" in row for row in document.get("rows", ()))


def section(source: str, document: Mapping[str, Any]) -> Section:
    """Raises KeyError, TypeError or ValueError if the file is of another version."""
    return Section(
        title="The simulation held against measurement",
        source=source,
        facts=(
            ("host", ", ".join(f"{name} {value:g}" for name, value in document["host"].items())),
            ("allowed", f"{document['limit']:.0%} apart"),
            ("measured", "units/s of the part replayed, fastest repetition"),
        ),
        tables=(
            Table(
                ("workload", "policy", "profile", "measured", "simulated", "apart"),
                tuple(_row(row) for row in document["rows"]),
            ),
        ),
    )


def _row(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    apart = row["simulated"] / row["measured"] - 1
    return (
        *(Cell(row[name]) for name in ("workload", "policy", "profile")),
        Cell(f"{row['measured']:.4g}", Mark.MODELLED),
        Cell(f"{row['simulated']:.4g}", Mark.SIMULATED),
        Cell(f"{apart:+.0%}", Mark.SIMULATED),
    )
