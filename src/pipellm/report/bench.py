"""What `pipellm bench --json` wrote, as a section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipellm.bench.spread import amount_form
from pipellm.report.plots import bars
from pipellm.report.section import Cell, Mark, Plot, Section, Table

COLUMNS = (
    *("workload", "model", "policy", "throughput", "of CC off", "of ideal", "x serial"),
    *("hit rate", "cores", "sealed", "the host lacks"),
)


def wrote(document: Mapping[str, Any]) -> bool:
    """Whether `pipellm bench` wrote it."""
    return "machine" in document and any("workload" in row for row in document.get("rows", ()))


def section(source: str, document: Mapping[str, Any]) -> Section:
    """Raises KeyError, TypeError or ValueError if the file is of another version."""
    rows = document["rows"]
    profiles = ", ".join(sorted({row["profile"] for row in rows}))
    return Section(
        title=f"Replayed in real time, profile {profiles}",
        source=source,
        facts=tuple((name, _fact(value)) for name, value in document["machine"].items()),
        tables=(Table(COLUMNS, tuple(_row(row) for row in rows)),),
        plots=(
            Plot(
                _shares(rows),
                "Throughput as a share of CC off, median; the link and computing are modelled",
            ),
        ),
    )


def _row(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    amount = f"{{:{amount_form(row['throughput'])}}}"
    return (
        Cell(row["workload"]),
        Cell(f"{row['model']} ({row['label']})"),
        Cell(row["policy"]),
        _figure(row, "throughput", amount, Mark.MODELLED, f" {row['unit']}"),
        _figure(row, "of_off", "{:.0%}", Mark.MODELLED),
        _figure(row, "of_ideal", "{:.0%}", Mark.MODELLED),
        _figure(row, "over_serial", "{:.2f}", Mark.MODELLED),
        _figure(row, "hit_rate", "{:.0%}", Mark.MEASURED),
        _figure(row, "cores", "{:.2f}", Mark.MEASURED),
        _figure(row, "seal_gbps", "{:.1f}", Mark.MEASURED, " GB/s"),
        Cell(row["limit"] or ""),
    )


def _figure(row: Mapping[str, Any], name: str, form: str, mark: Mark, unit: str = "") -> Cell:
    if row[name] is None:
        return Cell("")
    middle, least, most = (form.format(value) for value in (row[name], *row[f"{name}_spread"]))
    return Cell(f"{middle}{unit}" if least == most else f"{middle} ({least} to {most}){unit}", mark)


def _shares(rows: list[Mapping[str, Any]]) -> str:
    groups = list(dict.fromkeys((row["workload"], row["model"]) for row in rows))
    series: dict[str, list[float | None]] = {}
    for row in rows:
        values = series.setdefault(row["policy"], [None] * len(groups))
        values[groups.index((row["workload"], row["model"]))] = row["of_off"]
    return bars(["\n".join(group) for group in groups], series, "share of CC off")


def _fact(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_fact(part)}" for name, part in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value)
