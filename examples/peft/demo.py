"""Unmodified PEFT on an emulated confidential GPU, once per program and policy.

    python -m examples.peft.demo

Everything it makes and logs lies in build/peft.
"""

import argparse
import sys

from rich import filesize
from rich.console import Console
from rich.table import Table

from examples import process, recipe
from examples.display import Display, yes
from examples.peft import model, program
from examples.peft.model import Model
from examples.peft.program import Program, Run

POLICIES = ("off", "serial", "pipelined")  # the first is what the others are compared with
FOLDER = process.ROOT / "build" / "peft"


def made_model(display: Display) -> Model:
    recipe.make(display, "model: a small OPT, made once", "examples.peft.model", FOLDER)
    return model.located(FOLDER)


def measured(display: Display, of: Model, what: Program, profile: str) -> dict[str, Run]:
    runs = {}
    for policy in POLICIES:
        with display.piece(f"{what.title}, policy {policy}") as piece:
            folder = FOLDER / "runs" / what.module.rpartition(".")[2] / policy
            runs[policy] = what.run(of, policy, profile, folder, piece.stage)
    return runs


def same_results(runs: dict[str, Run]) -> bool:
    """Whether every policy gave the losses and tokens of the first, to the last bit."""
    return len({str((run.losses, run.tokens)) for run in runs.values()}) == 1


def table(what: Program, runs: dict[str, Run]) -> Table:
    base = runs[POLICIES[0]]
    result = Table(title=f"{what.title}: a small OPT, its layers in host memory")
    result.add_column("policy")
    for heading in (base.unit, f"of {POLICIES[0]}", "H2D", "D2H", "hit rate"):
        result.add_column(heading, justify="right")
    result.add_column(f"= {POLICIES[0]}", justify="center")
    for policy, run in runs.items():
        same = (run.losses, run.tokens) == (base.losses, base.tokens)
        result.add_row(
            policy,
            f"{run.throughput:.2f}",
            f"{run.throughput / base.throughput:.0%}",
            filesize.decimal(run.h2d_bytes),
            filesize.decimal(run.d2h_bytes),
            run.hit_rate,
            yes(same),
        )
    return result


def caption(profile: str) -> str:
    base = POLICIES[0]
    return (
        "samples/s, tokens/s: by the program's own account, measured on this machine.\n"
        f"= {base}: losses and tokens are those of {base}, to the last bit.\n"
        "Hit rate: swap-ins that had been sealed ahead, the first steps' included.\n"
        f"Modelled: the link and its tolls (profile {profile}). Emulated: the device; its\n"
        "arithmetic runs on this CPU, inside the time measured: the shares are no GPU's."
    )


def main() -> int:
    """0 if all policies gave the same results, 1 if one did not, 2 if a piece failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--profile", default="h100", help="the device's cost model (%(default)s)")
    profile = parser.parse_args().profile
    console = Console()
    display = Display(console)
    try:
        with display.shown():
            of = made_model(display)
            runs = {what: measured(display, of, what, profile) for what in program.PROGRAMS}
    except (process.PieceError, program.OutputError) as failure:
        message = f"demo: {failure}"
        console.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        return 130
    for what, of_what in runs.items():
        console.print(table(what, of_what))
    console.print(caption(profile), highlight=False)
    return 0 if all(map(same_results, runs.values())) else 1


if __name__ == "__main__":
    sys.exit(main())
