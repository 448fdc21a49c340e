"""Simulated rows as tables: for the terminal, and for a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.table import Table

from pipellm.runtime.policy import POLICIES
from pipellm.simulate.paper import PUBLISHED_BOUND
from pipellm.simulate.point import Row

HEADINGS = ("model", "case", "throughput", "lost", "to the link", "to software", "GB/s", "hit rate")
_LATENCY = "s/token"


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """One for each profile and system."""
    for (profile, system), group in grouped(rows):
        table = Table(title=f"{system}, profile {profile}, simulated", title_justify="left")
        headings = headings_of(group)
        for heading in headings:
            table.add_column(heading, justify="left" if heading in HEADINGS[:2] else "right")
        for row in group:
            ours = POLICIES[row.case].foresees
            table.add_row(*cells(row, headings), style="bold" if ours else None)
            if row is group[-1] or row.case == _last_case(group):
                table.add_section()
        yield table


def markdown(rows: Sequence[Row]) -> Iterator[str]:
    """The same, line by line, for a document."""
    for (profile, system), group in grouped(rows):
        headings = headings_of(group)
        yield f"**{system}, profile `{profile}`** (simulated)"
        yield ""
        yield "| " + " | ".join(headings) + " |"
        yield (
            "|"
            + "|".join("---" if heading in HEADINGS[:2] else "---:" for heading in headings)
            + "|"
        )
        for row in group:
            yield "| " + " | ".join(cells(row, headings)) + " |"
        yield ""


def findings(rows: Sequence[Row]) -> Iterator[str]:
    """What the rows come to, beside what the paper published."""
    planned = [row for row in rows if row.hit_rate is not None]
    for (profile, system), planners in grouped(planned):
        for case in dict.fromkeys(row.case for row in planners):
            gaps = [row.software_drop for row in planners if row.case == case]
            yield (
                f"{profile}, {system}: {case} is {100 * min(gaps):.1f} to {100 * max(gaps):.1f} "
                "points below ideal."
            )
    serial = [row for row in rows if row.case == "serial"]
    for (profile, system), group in grouped(serial):
        drops = [row.drop_vs_off for row in group]
        yield (
            f"{profile}, {system}: as shipped, confidential computing costs {min(drops):.1%} to "
            f"{max(drops):.1%}."
        )
    for (profile, system), group in grouped(planned):
        if all(row.drop_vs_off > PUBLISHED_BOUND for row in group):
            rates = [row.link_gb_s / (1 - PUBLISHED_BOUND) for row in group]
            yield (
                f"{profile}, {system}: to lose no more than the {PUBLISHED_BOUND:.1%} published, "
                f"it would have to move {min(rates):.1f} to {max(rates):.1f} GB/s at most with "
                "confidential computing off."
            )


def effort(rows: Sequence[Row]) -> str:
    """How long it took to simulate these rows, in one line."""
    seconds: dict[str, float] = {}
    for row in rows:
        seconds[row.case] = seconds.get(row.case, 0.0) + row.cpu_s
    each = ", ".join(f"{case} {spent:.1f}" for case, spent in seconds.items())
    return f"Seconds of one core that it took, measured: {each}."


def grouped(rows: Iterable[Row]) -> Iterator[tuple[tuple[str, str], list[Row]]]:
    """By profile and system."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.profile, row.system), []).append(row)
    yield from groups.items()


def headings_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """The columns that these rows need."""
    served = any(row.latency is not None for row in rows)
    return (*HEADINGS[:3], _LATENCY, *HEADINGS[3:]) if served else HEADINGS


def _last_case(rows: Sequence[Row]) -> str:
    return list(dict.fromkeys(row.case for row in rows))[-1]


def cells(row: Row, headings: Sequence[str]) -> list[str]:
    """A row's text in each column; empty where it has nothing to say."""
    base = row.case == "off"
    texts = {
        "model": row.program,
        "case": row.case,
        "throughput": f"{row.throughput:.4g} {row.unit}",
        _LATENCY: "" if row.latency is None else f"{row.latency:.3f}",
        "lost": "" if base else f"{row.drop_vs_off:.1%}",
        "to the link": "" if base else f"{row.link_drop:.1%}",
        "to software": "" if base else f"{row.software_drop:.1%}",
        "GB/s": f"{row.link_gb_s:.1f}",
        "hit rate": "" if row.hit_rate is None else f"{row.hit_rate:.1%}",
    }
    return [texts[heading] for heading in headings]
