"""`pipellm simulate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipellm.cli.parser import Commands


def add(commands: Commands) -> None:
    simulate = commands.add_parser(
        "simulate",
        help="the paper's evaluation in virtual time, on hosts and GPUs of any size",
        description="Runs the programs of the paper's evaluation in virtual time: the same "
        "predictor and planner, a modelled host and GPU.",
        allow_abbrev=False,
    )
    simulate.add_argument(
        "--profile",
        action="append",
        help="what the device is like, as for `run`; may be repeated (default: h100 and h100-nvl)",
    )
    simulate.add_argument(
        "--system", action="append", default=[], help="flexgen, vllm or peft; may be repeated"
    )
    simulate.add_argument(
        "--model", action="append", default=[], help="opt-66b, ...; may be repeated"
    )
    simulate.add_argument(
        "--units",
        metavar="N",
        type=int,
        help="of each program's work: tokens, samples (default: as the evaluation has it)",
    )
    simulate.add_argument(
        "--trace",
        metavar="FILE",
        type=Path,
        help="what `pipellm trace record` has recorded, instead of the paper's programs",
    )
    simulate.add_argument(
        "--host", default="server", help="whose rates to take (default: server, like the paper's)"
    )
    simulate.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="QUANTITY=NUMBER",
        help="another rate of the host: cores=8, seal=5.5 (GB/s); may be repeated",
    )
    simulate.add_argument(
        "--sweep", metavar="QUANTITY=VALUES", help="cores=1..64 (doubling), or seal=5.5,18.5"
    )
    simulate.add_argument("--ray", metavar="ADDRESS", help="run on the Ray cluster there")
    simulate.add_argument("--json", metavar="FILE", type=Path, help="write all rows there")
    simulate.add_argument("--markdown", action="store_true", help="print tables for a document")
    simulate.add_argument(
        "--check",
        nargs="?",
        const="",
        metavar="FILE.json",
        help="compare with what `pipellm bench` measures, or has written there",
    )
    simulate.set_defaults(handler=_simulate)


def _simulate(arguments: argparse.Namespace) -> int:
    from pipellm.simulate import command

    return command.run(arguments)
