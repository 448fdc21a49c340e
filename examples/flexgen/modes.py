"""What `pipelined` foresees of FlexGen's real copies, in every mode that moves something.

python -m examples.flexgen.modes [MODE ...]
"""

import argparse
import sys

from rich import box, filesize
from rich.console import Console
from rich.table import Table

from examples import process
from examples.display import Display, yes
from examples.flexgen import demo, hits, program
from examples.flexgen.mode import MODES, POLICIES, Mode
from examples.flexgen.program import Run


def table(words: int, profile: str) -> Table:
    """The table without its rows."""
    result = Table(
        title=f"FlexGen 0.1.8, OPT-125M's shapes, batch {program.BATCH}, {words} words",
        caption=(
            "Hits: swap-ins that had been sealed ahead, in all, and from word "
            f"{hits.SHORT + 1} on.\n"
            "Wiped: sealed ahead and never sent, as a share of what crossed to the device.\n"
            f"Measured; the device is emulated, its link modelled (profile {profile})."
        ),
        caption_justify="left",
        box=box.SIMPLE,  # so that nine columns fit a terminal
        pad_edge=False,
    )
    for heading in ("mode", "policy"):
        result.add_column(heading, no_wrap=True)
    for heading in ("H2D", "D2H", "hits", "later", "wiped"):
        result.add_column(heading, justify="right", no_wrap=True)
    for heading in (f"= {POLICIES[0]}", "= CPU"):
        result.add_column(heading, justify="center")
    return result


def add_rows(
    to: Table, mode: Mode, runs: dict[str, Run], short: Run, reference: tuple[int, ...] | None
) -> None:
    """One row per policy; `short` is the short run under the one that plans."""
    for policy, run in runs.items():
        later = wiped = "-"
        if run.wasted_bytes is not None:
            came, did_not = run.beyond(short)
            later = f"{came / max(came + did_not, 1):.1%}"
            wiped = f"{run.wasted_bytes / run.h2d_bytes:.0%}"
        to.add_row(
            mode.name,
            policy,
            filesize.decimal(run.h2d_bytes),
            filesize.decimal(run.d2h_bytes),
            run.hit_rate,
            later,
            wiped,
            yes(run.tokens == runs[POLICIES[0]].tokens),
            "-" if reference is None else yes(demo.same_as_reference(run, reference)),
        )
    to.add_section()


def main() -> int:
    """0 if the tokens were the same everywhere, 1 if somewhere not, 2 if a piece failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    modes = "; ".join(f"{mode.name}: {mode.summary}" for mode in MODES.values())
    parser.add_argument("modes", nargs="*", metavar="MODE", help=f"{modes} (all of them)")
    parser.add_argument("--profile", default="h100", help="the device's cost model (%(default)s)")
    parser.add_argument(
        "--words", type=int, default=hits.LONG, help="tokens to generate (%(default)s)"
    )
    arguments = parser.parse_args()
    demo.check_words(parser, arguments.words, least=hits.SHORT + 1)
    for name in arguments.modes:
        if name not in MODES:
            parser.error(f"no mode {name!r}; there are {', '.join(MODES)}")
    console = Console()
    display = Display(console)
    result = table(arguments.words, arguments.profile)
    same = True
    try:
        with display.shown():
            of = demo.made_model(display)
            reference = demo.reference_tokens(display, of, arguments.words)
            for name in arguments.modes or MODES:
                mode = MODES[name]
                expected = reference if mode.exact else None
                short = hits.short_run(display, of, arguments.profile, mode)
                runs = demo.measured(display, of, arguments.profile, arguments.words, mode)
                add_rows(result, mode, runs, short, expected)
                same &= demo.agree(runs, expected)
    except (process.PieceError, program.OutputError) as failure:
        message = f"modes: {failure}"
        console.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        return 130
    console.print(result)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
