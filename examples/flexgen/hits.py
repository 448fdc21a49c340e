"""The hit rate of FlexGen's real copies under `pipelined`, once it is under way.

    python -m examples.flexgen.hits

Two runs of different lengths begin alike, so what the longer one has more is the steady state:
every token after the first few.
"""

import sys

from rich.console import Console

from examples.display import Display
from examples.flexgen import model, program
from examples.flexgen.demo import FOLDER, made_model
from examples.flexgen.mode import WEIGHTS, Mode
from examples.flexgen.model import Model
from examples.flexgen.program import Run

POLICY = "pipelined"
SHORT, LONG = 4, 16


def short_run(display: Display, of: Model, profile: str, mode: Mode) -> Run:
    """The first few tokens, with what is to be learned from them."""
    with display.piece(f"FlexGen, {mode.summary}, under policy {POLICY}, {SHORT} words") as piece:
        folder = FOLDER / "runs" / f"{mode.name}-{POLICY}-{SHORT}"
        return program.run(of, POLICY, profile, SHORT, folder, piece.stage, mode=mode)


def main() -> int:
    """0 if the hit rate is at least 0.98."""
    console = Console()
    display = Display(console)
    with display.shown():
        of = made_model(display)
        short = short_run(display, of, "h100", WEIGHTS)
        with display.piece(f"FlexGen under policy {POLICY}, {LONG} words") as piece:
            folder = FOLDER / "runs" / f"{POLICY}-{LONG}"
            long = program.run(of, POLICY, "h100", LONG, folder, piece.stage)
    hits, misses = long.beyond(short)
    rate = hits / (hits + misses)
    console.print(
        f"{model.NAME}, tokens {SHORT + 1} to {LONG}: {hits} of {hits + misses} swap-ins were "
        f"sealed ahead: {rate:.3f} (measured)"
    )
    return 0 if rate >= 0.98 else 1


if __name__ == "__main__":
    sys.exit(main())
