"""What `pipellm doctor --json` wrote, as a section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipellm.report.section import Cell, Section, Table


def wrote(document: Mapping[str, Any]) -> bool:
    """Whether `pipellm doctor` wrote it."""
    return "checks" in document and "engine" in document


def section(source: str, document: Mapping[str, Any]) -> Section:
    """Raises KeyError, TypeError or ValueError if the file is of another version."""
    return Section(
        title="The machine, as the doctor sees it",
        source=source,
        facts=(
            ("engine", f"{document['engine']}, {document['seal_gbps']:.1f} GB/s"),
            ("libcrypto", f"{document['libcrypto_gbps']:.1f} GB/s"),
        ),
        tables=(
            Table(
                ("check", "status", "detail", "remedy"),
                tuple(
                    tuple(
                        Cell(check[name] or "") for name in ("name", "status", "detail", "remedy")
                    )
                    for check in document["checks"]
                ),
            ),
        ),
    )
