"""`pipellm bench`: what the user asked for, checked, then measured and shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipellm import drawing
from pipellm.bench import cases, figures, scaled
from pipellm.bench.compare import Plan, Row, as_json, machine
from pipellm.bench.contenders import CONTENDERS, Contender
from pipellm.errors import UserError, unknown
from pipellm.gpu.emulated.profile import canonical
from pipellm.output import Growing, Output
from pipellm.terminal.console import console
from pipellm.terminal.progress import Progress
from pipellm.terminal.table import show
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

    Without `workloads` it is all of them, or the one that was recorded. If the work stops half way,
    what there is by then is shown and kept.
    """
    source = Path(recorded.file) if recorded else None
    if plot_path is not None:
        drawing.check(plot_path, source)
    output = Output(json_path, "the figures") if json_path is not None else None
    if output is not None:
        output.check(source, plot_path)
    plan = _plan(workloads, policies, profile, seconds, repeats, recorded)
    if plan.scale is not None:
        slowdown = plan.scale.slowdown
        console().print(
            f"profile {scaled.NAME}: the paper's server, {slowdown:.1f} times slower. This host "
            f"seals {plan.scale.seal_gbps:.1f} GB/s with one core, which stands for "
            f"{slowdown:.1f} of the server's"
        )
    rows: list[Row] = []

    def document() -> dict[str, object]:
        return {"machine": machine(plan.scale), "rows": [as_json(row) for row in rows]}

    try:
        with (
            Growing(output, document, "workloads", len(plan.cases)) as file,
            Progress("bench", plan.measurements) as progress,
        ):

            def ended(more: Sequence[Row]) -> None:
                rows.extend(more)
                file.add()

            plan.run(progress.begins, ended)
    finally:
        # After the file is written: standard output may be closed by now.
        if rows:
            _show(rows, repeats)
    if plot_path is not None:
        figures.plot(rows, plot_path)
    return 0


def _show(rows: Sequence[Row], repeats: int) -> None:
    screen = console()
    for table in figures.tables(rows):
        show(screen, table)
    screen.print(
        f"Medians of {repeats}, least and most in brackets, by the emulated machine's clock. "
        "Compute and link are modelled; sealing, copying, tracking and planning were done on this "
        "host's cores, and every byte was checked. Paced: held back to what the modelled server "
        "does. GB/s: sealed and opened. Where 1 of N layers is replayed, throughput was divided by "
        "N."
    )


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
        scale=scaled.measured() if profile == scaled.NAME else None,
        seconds=seconds,
        repeats=repeats,
    )
