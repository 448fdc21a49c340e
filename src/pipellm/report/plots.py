"""Bar charts as SVG elements."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

COLOURS = {
    "off": "#7a869a",
    "ideal": "#2a9d8f",
    "serial": "#d1495b",
    "paper": "#2f5fc4",
}
"""One colour per policy on every plot; what is not listed takes the remaining ones in turn."""
OTHERS = ("#8a4fb8", "#e09f3e", "#4f772d")


def bars(
    groups: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    label: str,
    lines: Mapping[str, float] | None = None,
) -> str:
    """Grouped vertical bars: `series[name][i]` stands in `groups[i]`, None leaves a gap.

    `label` names the vertical axis; `lines` are horizontal ones to compare with, by name.
    """
    import matplotlib
    from matplotlib.figure import Figure

    # Texts stay texts; the salt keeps the identifiers of two plots on one page apart.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label + repr(groups)}):
        figure = Figure(figsize=(max(6.0, 1.1 * len(groups) + 2.5), 3.2), layout="constrained")
        axes = figure.add_subplot()
        width = 0.8 / max(len(series), 1)
        others = iter(OTHERS * len(series))
        for index, (name, values) in enumerate(series.items()):
            shown = [(place, value) for place, value in enumerate(values) if value is not None]
            axes.bar(
                [place + (index - (len(series) - 1) / 2) * width for place, _ in shown],
                [value for _, value in shown],
                width,
                label=name,
                color=COLOURS.get(name) or next(others),
            )
        for name, value in (lines or {}).items():
            axes.axhline(value, color="#1c2330", linewidth=1, linestyle="--")
            axes.annotate(
                name,
                (1, value),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
                fontsize=8,
            )
        axes.set_xticks(range(len(groups)), groups, fontsize=8)
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper center", ncols=len(series), frameon=False, fontsize=8)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    text = written.getvalue()
    return text[text.index("<svg") :]  # without the XML prologue, which HTML does not want
