"""The hit rates of the programs' real copies under `paper`, once they are under way.

    python -m examples.peft.hits

Two runs of different lengths begin alike, so what the longer one has more is the steady state.
"""

import sys

from rich.console import Console

from examples.display import Display
from examples.peft.demo import FOLDER, made_model
from examples.peft.program import PROGRAMS, Run

SHORT, LONG = 6, 18
LEAST = 0.9


def main() -> int:
    """0 if every hit rate is at least 0.9."""
    console = Console()
    display = Display(console)
    FOLDER.mkdir(parents=True, exist_ok=True)
    rates = []
    lines = []
    with display.shown():
        of = made_model(display)
        for what in PROGRAMS:
            runs = []
            for length in (SHORT, LONG):
                with display.piece(f"{what.title}, policy paper, {length} steps") as piece:
                    name = f"{what.module.rpartition('.')[2]}-{length}"
                    folder = FOLDER / "hits" / name
                    runs.append(what.run(of, "paper", "h100", folder, piece.stage, length))
            hits, misses = _more(*runs)
            rates.append(hits / (hits + misses))
            lines.append(
                f"{what.title}, {SHORT + 1} to {LONG}: {hits} of {hits + misses} swap-ins were "
                f"sealed ahead: {rates[-1]:.3f} (measured)"
            )
    console.print("\n".join(lines), highlight=False)
    return 0 if min(rates) >= LEAST else 1


def _more(short: Run, long: Run) -> tuple[int, int]:
    """Hits and misses that the longer run has more."""
    assert short.hits is not None
    assert short.misses is not None
    assert long.hits is not None
    assert long.misses is not None
    return long.hits - short.hits, long.misses - short.misses


if __name__ == "__main__":
    sys.exit(main())
