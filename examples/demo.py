"""FlexGen, PEFT and vLLM, unmodified, on an emulated confidential GPU, per policy, in one table.

    python -m examples.demo

Its logs lie in build/demo; the models in build/flexgen, build/peft and build/vllm.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import filesize
from rich.console import Console
from rich.table import Table

from examples import process, recipe
from examples.display import Display, yes
from examples.flexgen import model as flexgen_model
from examples.flexgen import program as flexgen
from examples.launch import Crossings
from examples.peft import model as peft_model
from examples.peft import program as peft
from examples.vllm import model as vllm_model
from examples.vllm import program as vllm

POLICIES = ("off", "serial", "pipelined")  # the first is what the others are compared with
FOLDER = process.ROOT / "build"
WORDS = 16  # that FlexGen generates

OnStage = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """One run of one system."""

    throughput: float
    unit: str
    outcome: object
    """The tokens or losses, which are to be the same under every policy."""
    crossings: Crossings


@dataclass(frozen=True)
class System:
    """An unmodified program, and how to run it."""

    title: str
    model: str
    """The module that makes its model, given a folder."""
    run: Callable[[Path, str, str, Path, OnStage], Result]
    """Takes the models' folder, a policy, a profile, a folder for the run, and whom to tell."""


def _flexgen(models: Path, policy: str, profile: str, folder: Path, on_stage: OnStage) -> Result:
    of = flexgen_model.located(models)
    run = flexgen.run(of, policy, profile, WORDS, folder, on_stage)
    return Result(run.decode_throughput, "tokens/s", run.tokens, run)


def _peft(models: Path, policy: str, profile: str, folder: Path, on_stage: OnStage) -> Result:
    of = peft_model.located(models)
    run = peft.ACCELERATE.run(of, policy, profile, folder, on_stage)
    return Result(run.throughput, run.unit, run.losses, run)


def _vllm(models: Path, policy: str, profile: str, folder: Path, on_stage: OnStage) -> Result:
    run = vllm.run(vllm_model.located(models), policy, profile, folder, on_stage)
    return Result(run.throughput, run.unit, run.tokens, run.crossings)


SYSTEMS = {
    "flexgen": System("FlexGen", "examples.flexgen.model", _flexgen),
    "peft": System("PEFT", "examples.peft.model", _peft),
    "vllm": System("vLLM", "examples.vllm.model", _vllm),
}


def measured(display: Display, name: str, profile: str) -> dict[str, Result]:
    """The system's runs, by policy. Raises PieceError or an OutputError if one fails."""
    system, models = SYSTEMS[name], FOLDER / name
    recipe.make(display, f"{name}: its model, made once", system.model, models)
    results = {}
    for policy in POLICIES:
        with display.piece(f"{name} under policy {policy}") as piece:
            folder = FOLDER / "demo" / name / policy
            results[policy] = system.run(models, policy, profile, folder, piece.stage)
    return results


def same(results: dict[str, Result]) -> bool:
    """Whether every policy gave what the first one gave."""
    return all(result.outcome == results[POLICIES[0]].outcome for result in results.values())


def table(results: dict[str, dict[str, Result]], profile: str) -> Table:
    made = Table(
        title="Unmodified programs on the emulated confidential GPU",
        caption=(
            "FlexGen: weights in host memory. PEFT: LoRA, layers in host memory.\n"
            "vLLM: a KV cache that overflows to host memory.\n"
            "units/s: tokens or samples, by the program's own account, measured here.\n"
            f"= {POLICIES[0]}: tokens or losses are those of {POLICIES[0]}, to the last bit.\n"
            "Hit rate: swap-ins that had been sealed ahead, the first ones included.\n"
            f"Modelled: the link and its tolls (profile {profile}). Emulated: the device; its\n"
            "arithmetic runs on this CPU, inside the time measured: the shares are no GPU's."
        ),
        caption_justify="left",
    )
    for heading in ("system", "policy"):
        made.add_column(heading)
    for heading in ("units/s", f"of {POLICIES[0]}", "H2D", "D2H", "hit rate"):
        made.add_column(heading, justify="right")
    made.add_column(f"= {POLICIES[0]}", justify="center")
    for name, of_system in results.items():
        base = of_system[POLICIES[0]]
        for policy, result in of_system.items():
            made.add_row(
                f"{SYSTEMS[name].title}, {base.unit}" if policy == POLICIES[0] else "",
                policy,
                f"{result.throughput:.2f}",
                f"{result.throughput / base.throughput:.0%}",
                filesize.decimal(result.crossings.h2d_bytes),
                filesize.decimal(result.crossings.d2h_bytes),
                result.crossings.hit_rate,
                yes(result.outcome == base.outcome),
            )
        made.add_section()
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if all policies gave the same results, 1 if one did not, 2 if a piece failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--profile", default="h100", help="the device's cost model (%(default)s)")
    parser.add_argument("system", nargs="*", help=f"{', '.join(SYSTEMS)} (default: all)")
    given = parser.parse_args(arguments)
    for name in given.system:
        if name not in SYSTEMS:
            parser.error(f"unknown system {name!r} (choose from {', '.join(SYSTEMS)})")
    console = Console()
    display = Display(console)
    try:
        with display.shown():
            results = {
                name: measured(display, name, given.profile) for name in given.system or SYSTEMS
            }
    except (
        *(process.PieceError, flexgen.OutputError, peft.OutputError, vllm.OutputError),
    ) as failure:
        message = f"demo: {failure}"
        console.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        return 130
    console.print(table(results, given.profile))
    return 0 if all(map(same, results.values())) else 1


if __name__ == "__main__":
    sys.exit(main())
