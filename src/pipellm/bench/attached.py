"""Policy `serial` on the emulated driver, with and without `--attach libcrypto`.

python -m pipellm.bench.attached

The same driver, link and bytes; only who serves libcrypto's AES-GCM differs. Each figure comes
from a process of its own, in turn, and each ratio from one round: these machines drift. The link
takes no time (profile `fast`), so what is left is what the host does, on the emulated clock.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from pipellm.attach.libcrypto import program_environment
from pipellm.bench.drivers import shipped_driver
from pipellm.bench.spread import Spread
from pipellm.own_folder import OwnFolder
from pipellm.transfers import Direction

_ROUNDS = 7
_NBYTES = 64 << 20
_REPEATS = 5
_SIDES = ("default", "attached")


def main() -> None:
    rates: dict[str, list[tuple[float, ...]]] = {side: [] for side in _SIDES}
    attached = program_environment(OwnFolder.of_this_user(), os.environ)
    environments = dict(zip(_SIDES, (os.environ, attached), strict=True))
    for _ in range(_ROUNDS):
        for side, environment in environments.items():
            rates[side].append(_in_a_process(environment))
    table = Table(
        title="serial, blocking copies of 64 MiB of pageable memory, no modelled link: measured, "
        f"{_ROUNDS} rounds, median (min to max)"
    )
    for column in ("direction", "libcrypto's own, GB/s", "attached, GB/s", "ratio"):
        table.add_column(column, justify="right")
    for index, direction in enumerate(Direction):
        default, ours = ([rate[index] for rate in rates[side]] for side in _SIDES)
        ratios = [b / a for a, b in zip(default, ours, strict=True)]
        table.add_row(
            direction.name,
            f"{Spread.of(default):.1f}",
            f"{Spread.of(ours):.1f}",
            f"{Spread.of(ratios):.2f}",
        )
    Console(width=110).print(table)


def _in_a_process(environment: Mapping[str, str]) -> tuple[float, ...]:
    said = subprocess.run(
        [sys.executable, "-m", __spec__.name, "--measure"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(map(float, said.stdout.split()))


def measure() -> None:
    """Prints this process's GB/s for each direction."""
    driver = shipped_driver("fast", confidential=True)
    for direction in Direction:
        times = driver.measure_copies(
            direction=direction.value, pinned=False, nbytes=_NBYTES, repeats=_REPEATS
        )
        print(_NBYTES / statistics.median(emulated for emulated, _ in times))


if __name__ == "__main__":
    measure() if sys.argv[1:] == ["--measure"] else main()
