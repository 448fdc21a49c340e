"""What `pipellm doctor --json` wrote, as a section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from pipellm.input import Figure, checked
from pipellm.report.section import Cell, Section, Table


class Check(Struct):
    """One thing that was looked at."""

    name: str
    status: str
    detail: str
    remedy: str | None


class Document(Struct):
    """The file."""

    engine: str
    seal_gbps: Figure
    libcrypto_gbps: Figure
    checks: list[Check]


def wrote(document: Mapping[str, Any]) -> bool:
    """Whether `pipellm doctor` wrote it."""
    return "checks" in document and "engine" in document


def section(source: str, document: Mapping[str, Any]) -> Section:
    """Raises ValueError if the file is of another version."""
    found = checked(document, Document)
    return Section(
        title="The machine, as the doctor sees it",
        source=source,
        facts=(
            ("engine", f"{found.engine}, {found.seal_gbps:.1f} GB/s"),
            ("libcrypto", f"{found.libcrypto_gbps:.1f} GB/s"),
        ),
        tables=(
            Table(
                ("check", "status", "detail", "remedy"),
                tuple(
                    (Cell(c.name), Cell(c.status), Cell(c.detail), Cell(c.remedy or ""))
                    for c in found.checks
                ),
            ),
        ),
    )
