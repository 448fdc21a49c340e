"""The demo: unmodified FlexGen on an emulated confidential GPU, once per policy, in one table.

    python -m examples.flexgen.demo

Everything it makes and logs lies in build/flexgen.
"""

import argparse
import sys

from rich import filesize
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from examples import process, recipe
from examples.display import Display, yes
from examples.flexgen import model, program, recital
from examples.flexgen.mode import MODES, POLICIES, WEIGHTS, Mode
from examples.flexgen.model import Model
from examples.flexgen.program import Run

FOLDER = process.ROOT / "build" / "flexgen"


def made_model(display: Display) -> Model:
    name = "model: OPT-125M's shapes, made once"
    recipe.make(display, name, "examples.flexgen.model", FOLDER)
    return model.located(FOLDER)


def reference_tokens(display: Display, of: Model, words: int) -> tuple[int, ...]:
    """The ids that transformers generates on the CPU, without PipeLLM or a device."""
    known = set(recital.vocabulary())
    said: list[str] = []
    with display.piece("reference: transformers on the CPU", steps=words) as piece:

        def on_line(line: str) -> None:
            if line in known:  # anything else is a message of a library
                said.append(line)
                piece.step(line)

        process.run(
            [sys.executable, "-m", "examples.flexgen.reference", str(of.checkpoint), str(words)],
            log=FOLDER / "reference.txt",
            on_line=on_line,
        )
    return tuple(recital.token_ids(" ".join(said)))


def measured(
    display: Display, of: Model, profile: str, words: int, mode: Mode = WEIGHTS
) -> dict[str, Run]:
    """A run under every policy that the mode admits."""
    runs = {}
    for policy in mode.policies:
        with display.piece(f"FlexGen, {mode.summary}, under policy {policy}") as piece:
            folder = FOLDER / "runs" / f"{mode.name}-{policy}"
            runs[policy] = program.run(of, policy, profile, words, folder, piece.stage, mode=mode)
    return runs


def table(
    runs: dict[str, Run], reference: tuple[int, ...] | None, profile: str, mode: Mode
) -> Table:
    base = runs[POLICIES[0]]
    result = Table(
        title=f"FlexGen 0.1.8, OPT-125M's shapes, batch {program.BATCH}, {mode.summary}",
        caption=(
            "tokens/s: FlexGen's own decode throughput, measured on this machine.\n"
            f"= {POLICIES[0]}, = CPU: the generated tokens are those of {POLICIES[0]}, and of "
            "transformers\non the CPU.\n"
            "Real: every copied byte; but under off, its AES-256-GCM sealing and opening.\n"
            "Hit rate: swap-ins that had been sealed ahead, the first token's included.\n"
            f"Modelled: the link and its tolls (profile {profile}). Emulated: the device; its\n"
            "arithmetic runs on this CPU, inside the time measured: the shares are no GPU's."
        ),
        caption_justify="left",
    )
    result.add_column("policy")
    for heading in ("tokens/s", f"of {POLICIES[0]}", "H2D", "D2H", "hit rate"):
        result.add_column(heading, justify="right")
    for heading in (f"= {POLICIES[0]}", "= CPU"):
        result.add_column(heading, justify="center")
    for policy, run in runs.items():
        result.add_row(
            policy,
            f"{run.decode_throughput:.2f}",
            f"{run.decode_throughput / base.decode_throughput:.0%}",
            filesize.decimal(run.h2d_bytes),
            filesize.decimal(run.d2h_bytes),
            run.hit_rate,
            yes(run.tokens == base.tokens),
            "-" if reference is None else yes(same_as_reference(run, reference)),
        )
    return result


def agree(runs: dict[str, Run], reference: tuple[int, ...] | None) -> bool:
    """Whether all policies gave the same tokens, and those of the reference if there is one."""
    base = runs[POLICIES[0]]
    return all(run.tokens == base.tokens for run in runs.values()) and (
        reference is None or same_as_reference(base, reference)
    )


def same_as_reference(run: Run, reference: tuple[int, ...]) -> bool:
    return all(row == reference for row in run.tokens)


def check_words(parser: argparse.ArgumentParser, words: int, least: int) -> None:
    longest = len(recital.CONTINUATION.split())
    if not least <= words <= longest:
        parser.error(f"--words {words}: take {least} to {longest}, the words that the text has")


def main() -> int:
    """0 if all policies gave the reference's tokens, 1 if one did not, 2 if a piece failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--profile", default="h100", help="the device's cost model (%(default)s)")
    parser.add_argument("--words", type=int, default=32, help="tokens to generate (%(default)s)")
    modes = "; ".join(f"{mode.name}: {mode.summary}" for mode in MODES.values())
    parser.add_argument(
        "--mode",
        choices=MODES,
        default=WEIGHTS.name,
        help=f"what lies where: {modes} (%(default)s)",
    )
    arguments = parser.parse_args()
    check_words(parser, arguments.words, least=2)
    mode = MODES[arguments.mode]
    console = Console()
    display = Display(console)
    try:
        with display.shown():
            of = made_model(display)
            reference = reference_tokens(display, of, arguments.words) if mode.exact else None
            runs = measured(display, of, arguments.profile, arguments.words, mode)
    except (process.PieceError, program.OutputError) as failure:
        message = f"demo: {failure}"
        console.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        return 130
    console.print(f"\n[bold]{escape(runs[POLICIES[0]].text)} …[/]\n")
    console.print(table(runs, reference, arguments.profile, mode))
    return 0 if agree(runs, reference) else 1


if __name__ == "__main__":
    sys.exit(main())
