"""`pipellm trace show|stats|replay`: the handlers of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from pipellm.gpu.emulated.profile import canonical
from pipellm.runtime.policy import POLICIES, Policy
from pipellm.trace import picture, summary
from pipellm.trace.file import load
from pipellm.trace.recording import copied
from pipellm.trace.replay import Replay


def show(arguments: argparse.Namespace) -> int:
    """In words, or as a picture."""
    recording = load(arguments.file)
    trace = recording.trace(arguments.number)
    if arguments.output is not None:
        picture.check(arguments.output)
        picture.draw(trace, arguments.output)
        return 0
    console = Console()
    summary.print_recording(recording, console)
    summary.print_trace(trace, console)
    return 0


def stats(arguments: argparse.Namespace) -> int:
    """What it is made of, and how often it could have been foreseen."""
    trace = load(arguments.file).trace(arguments.number)
    console = Console()
    summary.print_trace(trace, console)
    summary.print_scores(trace, console)
    return 0


def replay(arguments: argparse.Namespace) -> int:
    """With real bytes on the emulated device, under one policy after the other."""
    trace = load(arguments.file).trace(arguments.number)
    profile = canonical(arguments.profile)
    policies = [Policy.named(name).name for name in arguments.policy or POLICIES]
    table = Table(title=f"{trace.name}, {trace.model}, replayed; profile {arguments.profile}")
    for heading in ("policy", "seconds", "GB/s", "swap-ins sealed ahead"):
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    for policy in policies:
        what = Replay(str(arguments.file), arguments.number, policy, profile, arguments.idle)
        seen = what.run()
        swaps = seen["hits"] + seen["misses"]
        table.add_row(
            *(policy, f"{seen['seconds']:.4f}", f"{copied(trace) / seen['seconds'] / 1e9:.2f}"),
            f"{seen['hits'] / swaps:.3f}" if swaps else "",
        )
    console = Console()
    console.print(table)
    console.print(
        "Seconds of the emulated machine: sealing is measured on this host; the link and the GPU's "
        "arithmetic are modelled. Every byte was checked.",
        highlight=False,
    )
    return 0


VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "show": show,
    "stats": stats,
    "replay": replay,
}
