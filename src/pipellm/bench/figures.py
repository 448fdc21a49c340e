"""Rows of a comparison, for the eye: a table in the terminal, and a plot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from pipellm import drawing
from pipellm.bench.compare import Row
from pipellm.bench.spread import Spread, amount_form


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """One for each workload: median, and in brackets least and most."""
    for case in dict.fromkeys(row.case for row in rows):
        yield _table([row for row in rows if row.case is case])


def _table(rows: Sequence[Row]) -> Table:
    first = rows[0]
    found = Table(
        title=f"{first.workload} {first.model}: {first.case.label}, profile {first.profile}",
        title_justify="left",
    )
    found.add_column("policy", no_wrap=True)
    columns = ("of off", "of ideal", "x serial", "hits", "GB/s", "cores", "CPU s/GB")
    for name in (first.unit, *columns):
        found.add_column(name, justify="right")
    paced = any(row.paced for row in rows)
    if paced:
        found.add_column("paced")
    lacks = any(row.limit for row in rows)
    if lacks:
        found.add_column("the host lacks")
    for row in rows:
        found.add_row(
            row.policy,
            _spread(row.throughput, amount_form(row.throughput.median)),
            _spread(row.of_off, ".0%"),
            _spread(row.of_ideal, ".0%"),
            "" if row.over_serial is None else f"{row.over_serial.median:.2f}",
            "" if row.hit_rate is None else f"{row.hit_rate.median:.0%}",
            "" if row.seal_gbps is None else f"{row.seal_gbps.median:.1f}",
            f"{row.cores.median:.2f}",
            "" if row.cpu_s_per_gb is None else f"{row.cpu_s_per_gb.median:.2f}",
            *((row.paced,) if paced else ()),
            *((row.limit,) if lacks else ()),
        )
    return found


def plot(rows: Sequence[Row], path: Path) -> None:
    """Bars of throughput as a share of `off`, a group for each workload; where `ideal` would end, a
    line."""
    from matplotlib.figure import Figure

    cases = list(dict.fromkeys(row.case.key for row in rows))
    policies = list(dict.fromkeys(row.policy for row in rows))
    figure = Figure(figsize=(max(6.0, 1.6 + 1.3 * len(cases)), 4.2), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(policies)
    for index, policy in enumerate(policies):
        mine = {row.case.key: row.of_off for row in rows if row.policy == policy}
        places = [number for number, key in enumerate(cases) if key in mine]
        shares = [mine[cases[number]] for number in places]
        axes.bar(
            [place + (index - (len(policies) - 1) / 2) * width for place in places],
            [share.median for share in shares],
            width,
            label=policy,
            yerr=[
                [share.median - share.least for share in shares],
                [share.most - share.median for share in shares],
            ],
            capsize=2,
        )
    axes.axhline(1, color="black", linewidth=0.6)
    ideal = {row.case.key: row.of_off.median / row.of_ideal.median for row in rows}
    axes.hlines(
        [ideal[key] for key in cases],
        [place - 0.45 for place in range(len(cases))],
        [place + 0.45 for place in range(len(cases))],
        colors="black",
        linestyles="dotted",
        label="ideal",
    )
    axes.set_xticks(range(len(cases)), cases, rotation=30, ha="right", parse_math=False)
    axes.set_ylabel("throughput, as a share of `off`")
    axes.set_title("Measured on a modelled GPU and link; sealing and planning are real")
    axes.legend(ncols=len(policies), frameon=False)
    drawing.write(figure, path)


def _spread(spread: Spread, form: str) -> str:
    middle = format(spread.median, form)
    least, most = format(spread.least, form), format(spread.most, form)
    return middle if least == most else f"{middle} ({least}-{most})"
