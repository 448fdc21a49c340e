"""The hit rate of FlexGen's real copies under `paper`, once it is under way.

    python -m examples.flexgen.hits

Two runs of different lengths begin alike, so what the longer one has more is the steady state:
every token after the first few.
"""

import sys

from rich.console import Console

from examples.flexgen import model, program
from examples.flexgen.demo import FOLDER, made_model
from examples.flexgen.display import Display

SHORT, LONG = 4, 16


def main() -> int:
    """0 if the hit rate is at least 0.98."""
    console = Console()
    display = Display(console)
    with display.shown():
        of = made_model(display)
        runs = []
        for words in (SHORT, LONG):
            with display.piece(f"FlexGen under policy paper, {words} words") as piece:
                folder = FOLDER / "runs" / f"paper-{words}"
                runs.append(program.run(of, "paper", "h100", words, folder, piece.stage))
    short, long = runs
    assert short.hits is not None
    assert short.misses is not None
    assert long.hits is not None
    assert long.misses is not None
    hits, misses = long.hits - short.hits, long.misses - short.misses
    rate = hits / (hits + misses)
    console.print(
        f"{model.NAME}, tokens {SHORT + 1} to {LONG}: {hits} of {hits + misses} swap-ins were "
        f"sealed ahead: {rate:.3f} (measured)"
    )
    return 0 if rate >= 0.98 else 1


if __name__ == "__main__":
    sys.exit(main())
