"""How fast each AES-256-GCM engine seals here, as a ratio to memcpy in the same run.

python -m pipellm.bench.engines
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from pipellm import _native
from pipellm.bench.spread import Spread

_ROUNDS = 9
_SECONDS = 0.1


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    cases: dict[tuple[str, int], Callable[[], float]] = {
        (engine, threads): _seal(engine, threads)
        for engine in _native.engines()
        for threads in sorted({1, cores})
    }
    ratios: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    rates: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    copies = []
    # In turn, and each ratio within one round: these machines drift.
    for _ in range(_ROUNDS):
        memcpy = _native.measure_memcpy(_SECONDS)
        copies.append(memcpy)
        for case, measure in cases.items():
            rate = measure()
            rates[case].append(rate)
            ratios[case].append(rate / memcpy)
    table = Table(title=f"Sealing 1 MiB messages, measured, {_ROUNDS} rounds, median (min to max)")
    for column in ("engine", "threads", "GB/s", "of memcpy, one thread"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    table.add_row("memcpy", "1", f"{statistics.median(copies) / 1e9:.1f}", "1")
    for (engine, threads), ratio in ratios.items():
        table.add_row(
            engine,
            str(threads),
            f"{statistics.median(rates[engine, threads]) / 1e9:.1f}",
            f"{Spread.of(ratio):.2f}",
        )
    Console().print(table)


def _seal(engine: str, threads: int) -> Callable[[], float]:
    return lambda: _native.measure_seal(engine, _SECONDS, threads)


if __name__ == "__main__":
    main()
