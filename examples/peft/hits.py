"""The hit rates of the programs' real copies under `pipelined`, once they are under way.

    python -m examples.peft.hits

Two runs of different lengths begin much alike, so what the longer one has more is the steady state:
to within the few swap-ins by which two beginnings differ.
"""

import sys

from rich.console import Console

from examples.display import Display
from examples.peft.demo import FOLDER, made_model
from examples.peft.program import PROGRAMS

SHORT, LONG = 6, 18
LEAST = 0.9


def main() -> int:
    """0 if every hit rate is at least 0.9."""
    console = Console()
    display = Display(console)
    rates = []
    lines = []
    with display.shown():
        of = made_model(display)
        for what in PROGRAMS:
            runs = []
            for length in (SHORT, LONG):
                with display.piece(f"{what.title}, policy pipelined, {length} steps") as piece:
                    name = f"{what.module.rpartition('.')[2]}-{length}"
                    folder = FOLDER / "hits" / name
                    runs.append(what.run(of, "pipelined", "h100", folder, piece.stage, length))
            hits, misses = runs[1].beyond(runs[0])
            rates.append(hits / (hits + misses))
            lines.append(
                f"{what.title}, {SHORT + 1} to {LONG}: {hits} of {hits + misses} swap-ins were "
                f"sealed ahead: {rates[-1]:.3f} (measured)"
            )
    console.print("\n".join(lines), highlight=False)
    return 0 if min(rates) >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
