"""A recording in words and numbers, on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from pipellm.predict.sizes import SMALL, SWAP
from pipellm.terminal.table import show
from pipellm.trace.recording import Recording, copied
from pipellm.trace.score import WINDOW, scores, sent_ahead
from pipellm.trace.trace import Trace
from pipellm.transfers import Direction
from pipellm.workloads.events import Compute, Copy, Idle, Synchronize, Write

CLASSES = (
    (f"up to {SMALL >> 10} KiB", 0, SMALL + 1),
    ("between", SMALL + 1, SWAP),
    (f"{SWAP >> 10} KiB and more", SWAP, 1 << 63),
)
"""By name: sizes from, and below (the planner's own two thresholds)."""


def print_recording(recording: Recording, console: Console) -> None:
    """What was run, and a line per trace."""
    ending = recording.exit_status
    console.print(
        f"{' '.join(recording.program)}\n"
        f"recorded under policy {recording.settings['policy']}, profile "
        f"{recording.settings['profile']}; "
        + ("died of a signal" if ending is None else f"ended with status {ending}"),
        highlight=False,
        markup=False,
    )
    table = Table()
    for heading in ("trace", "process", "device", "recorded s", "events", "copied MB", "TFLOP"):
        table.add_column(heading, justify="right")
    for number, trace in enumerate(recording.traces, 1):
        flops = sum(s.event.flops for s in trace.steps if isinstance(s.event, Compute))
        table.add_row(
            *(str(number), str(trace.pid), str(trace.device), f"{trace.seconds:.2f}"),
            f"{len(trace.steps):,}" + ("" if trace.complete else " (end missing)"),
            *(f"{copied(trace) / 1e6:,.1f}", f"{flops / 1e12:.4g}"),
        )
    show(console, table)


def print_trace(trace: Trace, console: Console) -> None:
    """What one trace is made of."""
    table = Table(title="copies")
    for heading in ("direction", "size", "copies", "MB", "seen before", "blocking", "pinned"):
        left = heading in ("direction", "size")
        table.add_column(heading, justify="left" if left else "right")
    for row in _copies(trace):
        table.add_row(*row)
    show(console, table)
    counts = Counter(type(step.event) for step in trace.steps)
    computes = [s.event for s in trace.steps if isinstance(s.event, Compute)]
    idle = sum(step.event.seconds for step in trace.steps if isinstance(step.event, Idle))
    console.print(
        f"{sum(c.kernels for c in computes):,} kernels: "
        f"{sum(c.flops for c in computes) / 1e12:.4g} TFLOP, "
        f"{sum(c.nbytes for c in computes) / 1e9:.4g} GB of device memory; "
        f"{counts[Synchronize]:,} synchronisations; {counts[Write]:,} buffers changed before they "
        f"crossed again; {idle:.2f} s of the host's own",
        highlight=False,
    )


def print_scores(trace: Trace, console: Console) -> None:
    """How often each predictor would have been right."""
    table = Table(title="share of swap-ins that were predicted, by predictor")
    for heading in ("predictor", "next", f"among the next {WINDOW}", "another one next", "silent"):
        table.add_column(heading, justify="left" if heading == "predictor" else "right")
    for name, score in scores(trace).items():
        total = max(score.swap_ins, 1)
        silent = score.swap_ins - score.next - score.wrong
        counts = (score.next, score.soon, score.wrong, silent)
        table.add_row(name, *(f"{count / total:.3f}" for count in counts))
    show(console, table)
    console.print(
        f"planner, everything sealed in time: {sent_ahead(trace):.3f} of the swap-ins sent from "
        "what was sealed ahead",
        highlight=False,
    )


def _copies(trace: Trace) -> Iterator[tuple[str, ...]]:
    copies = [step.event for step in trace.steps if isinstance(step.event, Copy)]
    for direction in Direction:
        for name, lowest, above in CLASSES:
            of_class = [
                c for c in copies if c.direction is direction and lowest <= c.nbytes < above
            ]
            if not of_class:
                continue
            places = len({(copy.address, copy.nbytes) for copy in of_class})
            count = len(of_class)
            yield (
                *(direction.name, name, f"{count:,}"),
                f"{sum(copy.nbytes for copy in of_class) / 1e6:,.1f}",
                f"{1 - places / count:.2f}",
                f"{sum(copy.blocking for copy in of_class) / count:.2f}",
                f"{sum(copy.pinned for copy in of_class) / count:.2f}",
            )
