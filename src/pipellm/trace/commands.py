"""`pipellm trace show|stats|replay`: the handlers of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from pipellm import drawing
from pipellm.terminal.console import console
from pipellm.trace import picture, summary
from pipellm.trace.file import load
from pipellm.trace.replay import Recorded


def show(arguments: argparse.Namespace) -> int:
    """In words, or as a picture."""
    if arguments.output is not None:
        drawing.check(arguments.output, arguments.file)
    recording = load(arguments.file)
    trace = recording.trace(arguments.number)
    if arguments.output is not None:
        picture.draw(trace, arguments.output)
        return 0
    screen = console()
    summary.print_recording(recording, screen)
    summary.print_trace(trace, screen)
    return 0


def stats(arguments: argparse.Namespace) -> int:
    """What it is made of, and how often it could have been foreseen."""
    trace = load(arguments.file).trace(arguments.number)
    screen = console()
    summary.print_trace(trace, screen)
    summary.print_scores(trace, screen)
    return 0


def replay(arguments: argparse.Namespace) -> int:
    """With real bytes on the emulated device, once under each policy."""
    from pipellm.bench import command as bench

    return bench.run(
        [],
        arguments.policy,
        arguments.profile,
        repeats=1,
        recorded=Recorded(str(arguments.file), arguments.number, arguments.idle),
    )


VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "show": show,
    "stats": stats,
    "replay": replay,
}
