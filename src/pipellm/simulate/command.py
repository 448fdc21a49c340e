"""`pipellm simulate`: the paper's evaluation in virtual time."""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from pipellm.errors import UserError
from pipellm.gpu.emulated.profile import canonical
from pipellm.output import Growing, Output
from pipellm.simulate import table
from pipellm.simulate.evaluation import evaluate, points
from pipellm.simulate.host import Host
from pipellm.simulate.paper import Experiment, experiments
from pipellm.simulate.point import LABEL, Row
from pipellm.simulate.sweep import Sweep, locally, on_ray
from pipellm.terminal.console import console
from pipellm.terminal.progress import Progress
from pipellm.terminal.table import show


def run(arguments: argparse.Namespace) -> int:
    """Simulates what was asked for, and prints it. If that stops half way, what there is by then is
    shown and kept."""
    checked = Path(arguments.check) if arguments.check else None
    output = Output(arguments.json, "the results") if arguments.json is not None else None
    if output is not None:
        output.check(arguments.trace, checked)
    if arguments.check is not None:
        from pipellm.simulate import check

        return check.run(checked, output)
    if arguments.units is not None and arguments.units < 1:
        raise UserError(f"--units {arguments.units}: expected a number above 0")
    if arguments.units is not None and arguments.trace is not None:
        raise UserError(f"--units {arguments.units}: a trace is replayed as a whole")
    host = Host.named(arguments.host)
    for assignment in arguments.set:
        name, _, value = assignment.partition("=")
        try:
            host = host.with_(name, float(value))
        except ValueError:
            raise UserError(f"--set {assignment}: expected QUANTITY=NUMBER") from None
    sweep = Sweep.parse(arguments.sweep) if arguments.sweep else None
    runner = on_ray(arguments.ray) if arguments.ray else locally
    todo = points(
        _experiments(arguments),
        [canonical(profile) for profile in arguments.profile or ["h100", "h100-nvl"]],
        list(sweep.hosts(host)) if sweep else [("", host)],
    )
    if not todo:
        raise UserError("nothing to simulate: vLLM needs the model and a cache to fit on one GPU")
    rows: list[Row] = []

    def document() -> dict[str, object]:
        return {"label": LABEL, "host": asdict(host), "rows": [row.as_json() for row in rows]}

    try:
        with (
            Growing(output, document, "rows", len(todo)) as file,
            Progress("simulate", len(todo)) as progress,
            closing(evaluate(todo, runner)) as groups,
        ):
            for group in groups:
                rows += group
                file.add(len(group))
                for row in group:
                    progress.ended(f"{row.system} {row.program}, {row.profile}, {row.case}")
    finally:
        # After the file is written: standard output may be closed by now.
        if rows:
            _show(rows, host, as_markdown=arguments.markdown)
    return 0


def _show(rows: list[Row], host: Host, *, as_markdown: bool) -> None:
    if as_markdown:
        print("\n".join(table.markdown(rows)))
        return
    screen = console()
    for each in table.tables(rows):
        show(screen, each)
    _explain(screen, host)
    for finding in table.findings(rows):
        screen.print(finding)
    screen.print(table.effort(rows))


def _experiments(arguments: argparse.Namespace) -> list[Experiment]:
    if arguments.trace is None:
        found = experiments(tuple(arguments.system), tuple(arguments.model))
        units: int | None = arguments.units
        return [each if units is None else replace(each, units=units) for each in found]
    from pipellm.trace import load
    from pipellm.trace.replay import require_work

    trace = load(arguments.trace).trace()
    require_work(trace, str(arguments.trace))
    return [Experiment(trace.name, trace.model, "recorded", trace, units=1)]


def _explain(screen: Console, host: Host) -> None:
    quantities = ", ".join(f"{name} {value:g}" for name, value in asdict(host).items())
    screen.print(
        f"All simulated, on a host of: {quantities} (GB/s; decision in µs).\n"
        "ideal: the confidential link and its tolls, sealing free. lost: of off's throughput; "
        "to the link: what ideal loses; to software: the rest. GB/s: bytes copied over the time."
    )
