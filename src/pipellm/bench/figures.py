"""Rows of a comparison, for the eye: a table in the terminal, and a plot."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from pipellm.bench.compare import Row
from pipellm.bench.spread import Spread, amount_form
from pipellm.errors import UserError
from pipellm.output import Output

FORMATS = (".png", ".svg")


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
    for name in (first.unit, "of off", "of ideal", "x serial", "hits", "GB/s", "cores"):
        found.add_column(name, justify="right")
    lacks = any(row.limit for row in rows)
    if lacks:
        found.add_column("the host lacks")
    for row in rows:
        found.add_row(
            row.policy,
            _spread(row.throughput, amount_form(row.throughput.median)),
            "" if row.of_off is None else f"{row.of_off.median:.0%}",
            _spread(row.of_ideal, ".0%"),
            "" if row.over_serial is None else f"{row.over_serial.median:.2f}",
            "" if row.hit_rate is None else f"{row.hit_rate.median:.0%}",
            "" if row.seal_gbps is None else f"{row.seal_gbps.median:.1f}",
            f"{row.cores.median:.2f}",
            *((row.limit,) if lacks else ()),
        )
    return found


def check_plot(path: Path, *sources: Path | None) -> None:
    """Raises UserError if no plot can be drawn there, or if that is one of its `sources`."""
    if path.suffix not in FORMATS:
        raise UserError(
            f"cannot plot to {path}: expected a file that ends in {' or '.join(FORMATS)}"
        )
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError("--plot needs matplotlib: pip install 'pipellm[bench]'") from None
    _output(path).check(*sources)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Bars of throughput as a share of `ideal`, a group for each workload."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cases = list(dict.fromkeys(row.case.key for row in rows))
    policies = list(dict.fromkeys(row.policy for row in rows))
    figure, axes = pyplot.subplots(figsize=(1.6 + 1.3 * len(cases), 4.2))
    width = 0.8 / len(policies)
    for index, policy in enumerate(policies):
        mine = {row.case.key: row.of_ideal for row in rows if row.policy == policy}
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
    axes.set_xticks(range(len(cases)), cases, rotation=30, ha="right")
    axes.set_ylabel("throughput, as a share of `ideal`")
    axes.set_title("Measured on a modelled GPU and link; sealing and planning are real")
    axes.legend(ncols=len(policies), frameon=False)
    figure.tight_layout()
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.removeprefix("."))
    pyplot.close(figure)
    _output(path).write(content.getvalue())


def _output(path: Path) -> Output:
    return Output(path, "the plot")


def _spread(spread: Spread, form: str) -> str:
    middle = format(spread.median, form)
    least, most = format(spread.least, form), format(spread.most, form)
    return middle if least == most else f"{middle} ({least}-{most})"
