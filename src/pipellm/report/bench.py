"""What `pipellm bench --json` wrote, as a section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import Struct

from pipellm.bench.spread import amount_form
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

COLUMNS = (
    *("workload", "model", "policy", "throughput", "of CC off", "of ideal", "x serial"),
    *("hit rate", "cores", "CPU per GB", "sealed", "the host lacks"),
)


Spread = tuple[Figure, Figure]


class Row(Struct):
    """One workload under one policy. A spread is the least and the most of the repetitions."""

    workload: str
    model: str
    label: str
    policy: str
    profile: str
    unit: str
    limit: str | None
    throughput: Figure
    throughput_spread: Spread
    of_off: Figure
    of_off_spread: Spread
    of_ideal: Figure
    of_ideal_spread: Spread
    over_serial: Figure | None
    over_serial_spread: Spread | None
    hit_rate: Figure | None
    hit_rate_spread: Spread | None
    cores: Figure
    cores_spread: Spread
    seal_gbps: Figure | None
    seal_gbps_spread: Spread | None
    paced: str | None = None
    """What was held back to the speed of the modelled host."""
    cpu_s_per_gb: Figure | None = None
    cpu_s_per_gb_spread: Spread | None = None


Fact = str | int | float | dict[str, str | int | float | None] | None


class Document(Struct):
    """The file."""

    machine: dict[str, Fact]
    rows: Annotated[list[Row], MOST_ROWS]
    complete: bool = True


def wrote(document: Mapping[str, Any]) -> bool:
    """Whether `pipellm bench` wrote it."""
    return "machine" in document and has_rows_with(document, "workload")


def section(source: str, document: Mapping[str, Any]) -> Section:
    """Raises ValueError if the file is of another version."""
    found = checked(document, Document)
    rows = found.rows
    profiles = ", ".join(sorted({row.profile for row in rows}))
    return Section(
        title=f"Replayed in real time, profile {profiles}",
        source=source,
        facts=(
            *((name, _fact(value)) for name, value in found.machine.items()),
            *unfinished(found.complete),
        ),
        tables=(Table(COLUMNS, tuple(_row(row) for row in rows), grouped=2),),
        plots=(
            Plot(
                _shares(rows),
                "Throughput as a share of CC off, median; the link and computing are modelled",
            ),
        ),
    )


def _row(row: Row) -> tuple[Cell, ...]:
    amount = f"{{:{amount_form(row.throughput)}}}"
    return (
        Cell(row.workload),
        Cell(f"{row.model} ({row.label})"),
        Cell(row.policy),
        _figure(row.throughput, row.throughput_spread, amount, Mark.MODELLED, f" {row.unit}"),
        _figure(row.of_off, row.of_off_spread, "{:.0%}", Mark.MODELLED),
        _figure(row.of_ideal, row.of_ideal_spread, "{:.0%}", Mark.MODELLED),
        _figure(row.over_serial, row.over_serial_spread, "{:.2f}", Mark.MODELLED),
        _figure(row.hit_rate, row.hit_rate_spread, "{:.0%}", Mark.MEASURED),
        _figure(row.cores, row.cores_spread, "{:.2f}", Mark.MEASURED),
        _figure(row.cpu_s_per_gb, row.cpu_s_per_gb_spread, "{:.2f}", Mark.MEASURED, " s"),
        _figure(
            *(row.seal_gbps, row.seal_gbps_spread, "{:.1f}"),
            *((Mark.MODELLED, " GB/s, paced") if row.paced else (Mark.MEASURED, " GB/s")),
        ),
        Cell(row.limit or ""),
    )


def _figure(
    median: float | None, spread: Spread | None, form: str, mark: Mark, unit: str = ""
) -> Cell:
    if median is None:
        return Cell("")
    middle, least, most = (form.format(value) for value in (median, *(spread or (median, median))))
    return Cell(f"{middle}{unit}", mark, "" if least == most else f"{least} to {most}")


def _shares(rows: Sequence[Row]) -> str:
    groups = list(dict.fromkeys((row.workload, row.model) for row in rows))
    series: dict[str, list[float | None]] = {}
    for row in rows:
        values = series.setdefault(row.policy, [None] * len(groups))
        values[groups.index((row.workload, row.model))] = row.of_off
    return bars([" ".join(group) for group in groups], series, "share of CC off")


def _fact(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_fact(part)}" for name, part in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value)
