"""`pipellm bench`: what the user asked for, checked, then measured and shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipellm.bench import cases, figures, scaled
from pipellm.bench.compare import Plan, Row, as_json, machine
from pipellm.bench.contenders import CONTENDERS, Contender
from pipellm.errors import UserError, unknown
from pipellm.gpu.emulated.profile import canonical
from pipellm.output import write_json
from pipellm.trace.replay import Recorded


def run(
    workloads: Sequence[str],
    policies: Sequence[str],
    profile: str,
    *,
    seconds: float = 5.0,
    repeats: int = 3,
    json_path: Path | None = None,
    plot_path: Path | None = None,
    recorded: Recorded | None = None,
) -> int:
    """Runs the comparison and shows it; returns the exit status. Raises UserError.

    Without `workloads` it is all of them, or the one that was recorded.
    """
    plan = _plan(workloads, policies, profile, seconds, repeats, recorded)
    if plot_path is not None:
        figures.check_plot(plot_path)
    if json_path is not None:
        write_json(json_path, {})  # now, rather than after all the work
    console = Console()
    if profile == scaled.NAME:
        console.print(
            f"profile {scaled.NAME}: this host seals {2 * plan.link_gbps:.1f} GB/s with one core, "
            f"so the confidential link carries {plan.link_gbps:.1f} GB/s, and "
            f"{scaled.off_gbps(plan.link_gbps):.1f} GB/s with confidential computing off"
        )
    rows: list[Row] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=plan.measurements)
        begun = 0

        def begins(what: str) -> None:
            nonlocal begun
            progress.update(task, description=what, completed=begun)
            begun += 1

        plan.run(begins, rows.extend)
    console.width = max(console.width, 110)  # a pipe has no width of its own
    for table in figures.tables(rows):
        console.print(table)
    console.print(
        f"Medians of {repeats}, least and most in brackets, by the emulated machine's clock. "
        "Compute and link are modelled; sealing, copying, tracking and planning were done on this "
        "host's cores, and every byte was checked. GB/s: sealed and opened. Where 1 of N layers is "
        "replayed, throughput was divided by N."
    )
    if json_path is not None:
        link = plan.link_gbps if profile == scaled.NAME else None
        write_json(json_path, {"machine": machine(link), "rows": [as_json(row) for row in rows]})
    if plot_path is not None:
        figures.plot(rows, plot_path)
    return 0


def _plan(
    workloads: Sequence[str],
    policies: Sequence[str],
    profile: str,
    seconds: float,
    repeats: int,
    recorded: Recorded | None,
) -> Plan:
    found = [cases.recorded(recorded)] if recorded else []
    for wanted in workloads or ([] if found else cases.CASES):
        matching = cases.chosen(wanted)
        if not matching:
            raise unknown("workload", wanted, cases.CASES)
        found += [case for case in matching if case not in found]
    for policy in policies:
        Contender.named(policy)
    if not 0 < seconds <= 3600:
        raise UserError(f"--seconds {seconds:g}: expected more than 0, at most 3600")
    if not 1 <= repeats <= 1000:
        raise UserError(f"--repeats {repeats}: expected 1 to 1000")
    if profile != scaled.NAME:
        profile = canonical(profile)
    return Plan(
        cases=found,
        policies=list(dict.fromkeys(policies)) or list(CONTENDERS),
        profile=profile,
        link_gbps=scaled.link_gbps() if profile == scaled.NAME else 0.0,
        seconds=seconds,
        repeats=repeats,
    )
