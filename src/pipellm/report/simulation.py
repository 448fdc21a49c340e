"""What `pipellm simulate --json` wrote, as a section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipellm.report.plots import bars
from pipellm.report.section import Cell, Mark, Plot, Section, Table

PUBLISHED = (("OPT-66B, CC", 0.882), ("OPT-30B, CC", 0.528), ("PipeLLM, at most", 0.196))
"""Drops of throughput against CC off (the paper's abstract, facts: V)."""


def wrote(document: Mapping[str, Any]) -> bool:
    """Whether `pipellm simulate` wrote it."""
    return any("drop_vs_off" in row for row in document.get("rows", ()))


def section(source: str, document: Mapping[str, Any]) -> Section:
    """Raises KeyError, TypeError or ValueError if the file is of another version."""
    rows = document["rows"]
    profiles = list(dict.fromkeys(row["profile"] for row in rows))
    systems = list(dict.fromkeys((row["profile"], row["system"]) for row in rows))
    return Section(
        title=f"Simulated, profile {', '.join(profiles)}",
        source=source,
        facts=(
            ("host", ", ".join(f"{name} {value:g}" for name, value in document["host"].items())),
            ("published", "; ".join(f"{name}: {drop:.1%}" for name, drop in PUBLISHED)),
        ),
        tables=tuple(
            _table(f"{system}, profile {profile}", _of(rows, profile, system))
            for profile, system in systems
        ),
        plots=tuple(
            Plot(
                _drops(_of(rows, profile, system)),
                f"{system}, profile {profile}: throughput lost against CC off, simulated",
            )
            for profile, system in systems
        ),
    )


def _of(rows: list[dict[str, Any]], profile: str, system: str) -> list[dict[str, Any]]:
    return [row for row in rows if (row["profile"], row["system"]) == (profile, system)]


def _model(row: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (row["model"], row["variant"], row["setting"])))


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    latency = any(row["latency"] is not None for row in rows)
    columns = ["model", "case", "throughput", *(["s/token"] if latency else [])]
    columns += ["lost", "to the link", "to software", "GB/s", "hit rate"]
    return Table(tuple(columns), tuple(_row(row, latency) for row in rows), title)


def _row(row: dict[str, Any], latency: bool) -> tuple[Cell, ...]:
    texts = [f"{row['throughput']:.4g} {row['unit']}"]
    if latency:
        texts.append("" if row["latency"] is None else f"{row['latency']:.3f}")
    for name in ("drop_vs_off", "link_drop", "software_drop"):
        texts.append("" if row["case"] == "off" else f"{row[name]:.1%}")
    texts.append(f"{row['link_gb_s']:.1f}")
    texts.append("" if row["hit_rate"] is None else f"{row['hit_rate']:.1%}")
    marked = (Cell(text, Mark.SIMULATED if text else None) for text in texts)
    return (Cell(_model(row)), Cell(row["case"]), *marked)


def _drops(rows: list[dict[str, Any]]) -> str:
    groups = list(dict.fromkeys(_model(row) for row in rows))
    series: dict[str, list[float | None]] = {}
    for row in rows:
        if row["case"] != "off":
            values = series.setdefault(row["case"], [None] * len(groups))
            values[groups.index(_model(row))] = row["drop_vs_off"]
    return bars(
        [group.replace(" ", "\n") for group in groups], series, "lost of CC off", dict(PUBLISHED)
    )
