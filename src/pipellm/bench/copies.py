"""Copies on the emulated GPU beside copies on a real one: profile `h100-nvl` against its source.

    python -m pipellm.bench.copies

Every row of the measurement (profiles/h100_nvl_copies.csv, a real H100 NVL in a TDX guest) is
copied here in the same mode, direction, kind of memory and size, as a C program's cudaMemcpy. Exit
status 1 if a row that counts is off by more than 25 %: from 64 KB up, seen at least 100 times.
"""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from pipellm.bench.drivers import shipped_driver
from pipellm.gpu.emulated.profile import PROFILES

TOLERANCE = 0.25
_LEAST_BYTES = 64_000
_LEAST_SEEN = 100
_SECONDS_PER_ROW = 0.3
_MOST_REPEATS = 200


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the measurement."""

    confidential: bool
    direction: str
    pinned: bool
    nbytes: int
    seen: int
    call_us: float

    @property
    def counts(self) -> bool:
        return self.nbytes >= _LEAST_BYTES and self.seen >= _LEAST_SEEN


def measured_rows() -> Iterator[Row]:
    with open(PROFILES / "h100_nvl_copies.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            yield Row(
                confidential=row["cc"] == "on",
                direction=row["direction"],
                pinned=row["host_memory"] == "pinned",
                nbytes=int(row["bytes"]),
                seen=int(row["n"]),
                call_us=float(row["api_us_median"]),
            )


def main() -> int:
    drivers = {
        confidential: shipped_driver("h100-nvl", confidential=confidential)
        for confidential in (False, True)
    }
    table = Table(title="cudaMemcpy, median µs: measured on an H100 NVL, and emulated here")
    for column in ("CC", "direction", "memory"):
        table.add_column(column)
    for column in ("bytes", "seen", "H100 NVL", "emulated", "ratio", "emulator's own", "verdict"):
        table.add_column(column, justify="right")
    failed = 0
    for row in measured_rows():
        # The measurement rounds to thousands; its rows of 0 are a few bytes.
        nbytes = max(row.nbytes, 4)
        repeats = int(min(_MOST_REPEATS, max(5, _SECONDS_PER_ROW * 1e6 / row.call_us)))
        times = drivers[row.confidential].measure_copies(
            direction=("H2D", "D2H").index(row.direction),
            pinned=row.pinned,
            nbytes=nbytes,
            repeats=repeats,
        )
        emulated = statistics.median(time for time, _ in times) / 1e3
        own = statistics.median(wall - time for time, wall in times) / 1e3
        ratio = emulated / row.call_us
        verdict = ""
        if row.counts:
            within = abs(ratio - 1) <= TOLERANCE
            verdict = "[green]ok" if within else "[red]off"
            failed += not within
        table.add_row(
            "on" if row.confidential else "off",
            row.direction,
            "pinned" if row.pinned else "pageable",
            f"{row.nbytes:,}",
            f"{row.seen:,}",
            f"{row.call_us:,.1f}",
            f"{emulated:,.1f}",
            f"{ratio:.2f}",
            f"{own:,.1f}",
            verdict,
        )
    console = Console()
    console.width = max(console.width, 110)  # a pipe has no width of its own
    console.print(table)
    console.print(
        "Emulated: on the emulated clock, which stands still while the emulator does the copy "
        "engine's work; that time is the column 'emulator's own'."
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
