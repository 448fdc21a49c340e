"""What `pipellm simulate --json` wrote, as a section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import Struct

from pipellm.input import MOST_ROWS, Figure, checked
from pipellm.report.plots import bars
from pipellm.report.section import (
    Cell,
    Mark,
    Plot,
    Section,
    Table,
    has_rows_with,
    unfinished,
)
from pipellm.simulate.paper import PUBLISHED_BOUND, PUBLISHED_DROPS
from pipellm.simulate.point import Row
from pipellm.simulate.table import HEADINGS, cells, grouped, headings_of

_SYSTEM = {"opt-66b": "flexgen", "opt-30b": "vllm"}
"""Under which the drop of each model was published."""


def published(system: str) -> dict[str, float]:
    """Drops of throughput against CC off that the paper says of a system, by what it says."""
    drops = {
        f"{model.upper()} with CC": drop
        for model, drop in PUBLISHED_DROPS.items()
        if _SYSTEM[model] == system
    }
    return {"PipeLLM at most": PUBLISHED_BOUND} | drops


class Document(Struct):
    """The file."""

    host: dict[str, Figure]
    rows: Annotated[list[Row], MOST_ROWS]
    complete: bool = True


def wrote(document: Mapping[str, Any]) -> bool:
    """Whether `pipellm simulate` wrote it."""
    return has_rows_with(document, "drop_vs_off")


def section(source: str, document: Mapping[str, Any]) -> Section:
    """Raises ValueError if the file is of another version."""
    found = checked(document, Document)
    rows = found.rows
    groups = [(f"{system}, profile {profile}", own) for (profile, system), own in grouped(rows)]
    return Section(
        title=f"Simulated, profile {', '.join(dict.fromkeys(row.profile for row in rows))}",
        source=source,
        facts=(
            ("host", ", ".join(f"{name} {value:g}" for name, value in found.host.items())),
            *(
                (f"published of {system}", "; ".join(f"{n}: {d:.1%}" for n, d in said.items()))
                for system, said in {row.system: published(row.system) for row in rows}.items()
            ),
            *unfinished(found.complete),
        ),
        tables=tuple(_table(title, own) for title, own in groups),
        plots=tuple(
            Plot(_drops(own), f"{title}: throughput lost against CC off, simulated")
            for title, own in groups
        ),
    )


def _table(title: str, rows: Sequence[Row]) -> Table:
    headings = headings_of(rows)
    names = HEADINGS[:2]
    return Table(
        headings,
        tuple(
            tuple(
                Cell(text, Mark.SIMULATED if text and heading not in names else None)
                for heading, text in zip(headings, cells(row, headings), strict=True)
            )
            for row in rows
        ),
        title,
        grouped=1,
    )


def _drops(rows: Sequence[Row]) -> str:
    groups = list(dict.fromkeys(row.program for row in rows))
    series: dict[str, list[float | None]] = {}
    for row in rows:
        if row.case != "off":
            values = series.setdefault(row.case, [None] * len(groups))
            values[groups.index(row.program)] = row.drop_vs_off
    return bars(groups, series, "throughput lost against CC off", published(rows[0].system))
