"""A trace as a picture: which host buffer crossed when, and which way."""

from __future__ import annotations

import math
from pathlib import Path
from textwrap import shorten

from pipellm import drawing
from pipellm.errors import UserError
from pipellm.predict.sizes import SWAP
from pipellm.trace.trace import Timed, Trace
from pipellm.transfers import Direction
from pipellm.workloads.events import Copy

COLOURS = {Direction.H2D: "#1f6fb4", Direction.D2H: "#d95f02"}
NAMES = {Direction.H2D: "to the device (H2D)", Direction.D2H: "from the device (D2H)"}


def draw(trace: Trace, path: Path) -> None:
    """Draws the trace. A row is a host buffer; rows are in the order of their addresses.

    Raises UserError if the picture cannot be written, or the trace has no copies.
    """
    drawing.require("a picture")
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    copies = [(at, event) for at, event in trace.steps if isinstance(event, Copy)]
    if not copies:
        raise UserError("there is no copy in the trace to draw")
    row = {place: n for n, place in enumerate(sorted({copy.address for _, copy in copies}))}
    figure = Figure(figsize=(11, 6), layout="constrained")
    axes, traffic = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
    handles = []
    for direction in Direction:
        these = [(at, copy) for at, copy in copies if copy.direction is direction]
        if not these:
            continue
        axes.scatter(
            [at / 1e6 for at, _ in these],
            [row[copy.address] for _, copy in these],
            s=[_area(copy.nbytes) for _, copy in these],
            c=COLOURS[direction],
            linewidths=0,
            alpha=0.75,
            rasterized=len(these) > 20_000,
        )
        total = sum(copy.nbytes for _, copy in these)
        label = f"{NAMES[direction]}: {len(these):,} copies, {total / 1e6:,.1f} MB"
        handles.append(Line2D([], [], ls="", marker="o", color=COLOURS[direction], label=label))
        traffic.step(
            [0.0, *(at / 1e6 for at, _ in these), trace.steps[-1].at / 1e6],
            [*_running(these), total / 1e6],
            where="post",
            color=COLOURS[direction],
        )
    for nbytes, words in ((4 << 10, "4 KiB"), (SWAP, "128 KiB"), (16 << 20, "16 MiB")):
        size = math.sqrt(_area(nbytes))
        handles.append(
            Line2D([], [], ls="", marker="o", color="#777777", markersize=size, label=words)
        )
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9
    )
    model = "" if trace.model == "-" else f", {trace.model}"
    title = shorten(f"{trace.name}{model}: what crossed the link, as recorded", 120)
    axes.set_title(title, loc="left", parse_math=False)
    axes.set_ylabel("host buffers,\nby address")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.01)
    traffic.set_ylabel("MB so far")
    traffic.set_xlabel("seconds since the first event (this machine computes slower than a GPU)")
    for each in (axes, traffic):
        each.grid(color="#dddddd", linewidth=0.5)
        each.spines[["top", "right"]].set_visible(False)
    drawing.write(figure, path)


def _area(nbytes: int) -> float:
    """A dot's, in square points: a size that can be told from half of it, and never vanishes."""
    return 2 + 0.35 * max(0, math.log2(nbytes) - 10) ** 2


def _running(copies: list[Timed] | list[tuple[int, Copy]]) -> list[float]:
    sums, total = [0.0], 0.0
    for _, copy in copies:
        assert isinstance(copy, Copy)
        total += copy.nbytes / 1e6
        sums.append(total)
    return sums
