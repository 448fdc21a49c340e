"""`pipellm simulate`: the paper's evaluation in virtual time."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipellm.errors import UserError
from pipellm.gpu.emulated.profile import canonical
from pipellm.output import write_json
from pipellm.simulate import table
from pipellm.simulate.evaluation import evaluate, points
from pipellm.simulate.host import Host
from pipellm.simulate.paper import Experiment, experiments
from pipellm.simulate.point import LABEL, Point, Row
from pipellm.simulate.sweep import Runner, Sweep, locally, on_ray


def run(arguments: argparse.Namespace) -> int:
    """Simulates what was asked for, and prints it."""
    if arguments.check is not None:
        from pipellm.simulate import check

        file = Path(arguments.check) if arguments.check else None
        return check.run(file, Console(), arguments.json)
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
    rows = _evaluated(todo, runner)
    console = Console()
    if arguments.markdown:
        print("\n".join(table.markdown(rows)))
    else:
        console.width = max(console.width, 110)  # a pipe has no width of its own
        for each in table.tables(rows):
            console.print(each)
        _explain(console, host)
        for finding in table.findings(rows):
            console.print(finding, highlight=False)
    if arguments.json:
        document = {"label": LABEL, "host": asdict(host), "rows": [row.as_json() for row in rows]}
        write_json(arguments.json, document)
    return 0


def _experiments(arguments: argparse.Namespace) -> list[Experiment]:
    if arguments.trace is None:
        return list(experiments(tuple(arguments.system), tuple(arguments.model)))
    from pipellm.trace import load

    trace = load(arguments.trace).trace()
    return [Experiment(trace.name, trace.model, "recorded", trace, units=1)]


def _evaluated(todo: list[Point], runner: Runner) -> list[Row]:
    columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(todo))
        return evaluate(todo, runner, lambda row: progress.advance(task))


def _explain(console: Console, host: Host) -> None:
    quantities = ", ".join(f"{name} {value:g}" for name, value in asdict(host).items())
    console.print(
        f"All simulated, on a host of: {quantities} (GB/s; decision in µs).\n"
        "ideal: the confidential link and its tolls, sealing free. lost: of off's throughput; "
        "to the link: what ideal loses;\nto software: the rest. GB/s: bytes copied over the time.",
        highlight=False,
    )
