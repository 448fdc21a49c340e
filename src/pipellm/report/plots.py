"""Bar charts as SVG elements."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from textwrap import shorten

from pipellm import drawing

COLOURS = {
    "off": "#7a869a",
    "ideal": "#2a9d8f",
    "serial": "#d1495b",
    "pipelined": "#2f5fc4",
}
"""One colour per policy on every plot; what is not listed takes the remaining ones in turn."""
OTHERS = ("#8a4fb8", "#e09f3e", "#4f772d")


_BAR, _MARGIN, _WIDTH = 0.11, 1.6, 7.5
"""Inches: a bar's height, what the axis and the legend take, the plot's width."""
_LONGEST = 44
"""Characters of a label."""


def bars(
    groups: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    label: str,
    lines: Mapping[str, float] | None = None,
) -> str:
    """Grouped horizontal bars: `series[name][i]` stands in `groups[i]`, None leaves a gap.

    `label` names the axis; `lines` are to compare with, by name. The more groups, the higher the
    plot, so that every label has its room.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    # Texts stay texts; the salt keeps the identifiers of two plots on one page apart.
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": label + repr(groups),
        "text.parse_math": False,
    }
    others = iter(OTHERS * len(series))
    height = 0.8 / max(len(series), 1)
    inches = _MARGIN + _BAR * len(groups) * (len(series) + 1.5)
    with drawing.quietly(), matplotlib.rc_context(settings):
        figure = Figure(figsize=(_WIDTH, inches), layout="constrained")
        axes = figure.add_subplot()
        for index, (name, values) in enumerate(series.items()):
            shown = [(place, value) for place, value in enumerate(values) if value is not None]
            axes.barh(
                [place + (index - (len(series) - 1) / 2) * height for place, _ in shown],
                [value for _, value in shown],
                height,
                label=shorten(name, _LONGEST, placeholder="..."),
                color=COLOURS.get(name) or next(others),
            )
        for (name, value), style in zip((lines or {}).items(), ("--", ":", "-."), strict=False):
            named = f"published: {name}, {value:.1%}"
            axes.axvline(value, color="#1c2330", linewidth=1.2, linestyle=style, label=named)
        labels = [shorten(group, _LONGEST, placeholder="...") for group in groups]
        axes.set_yticks(range(len(groups)), labels, fontsize=8)
        axes.invert_yaxis()
        axes.margins(y=0.5 / max(len(groups), 1))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.tick_params(axis="x", labelsize=8)
        axes.set_xlabel(label, fontsize=8)
        axes.grid(axis="x", color="#dddddd", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    text = written.getvalue()
    return text[text.index("<svg") :]  # without the XML prologue, which HTML does not want
