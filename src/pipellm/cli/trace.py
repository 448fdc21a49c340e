"""`pipellm trace`: recording what a program asks of the device, and what can be done with it."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from pipellm.cli import run
from pipellm.cli.parser import Commands
from pipellm.settings import DEFAULT_PROFILE


def add(commands: Commands) -> None:
    trace = commands.add_parser(
        "trace",
        help="record what a program asks of the device; look at it, score it, replay it",
        description="Keeps what a program asks of the device, to look at it and to run it again.",
        allow_abbrev=False,
    )
    verbs = trace.add_subparsers(metavar="VERB", required=True)
    record = verbs.add_parser(
        "record",
        help="run a program and record it",
        description="Runs PROGRAM as `pipellm run` does, and records it however it ends.",
        usage="pipellm trace record -o FILE [options of run] -- PROGRAM [ARGUMENT ...]",
        allow_abbrev=False,
    )
    record.add_argument("-o", "--output", dest="trace", required=True, metavar="FILE")
    run.add_options(record)
    record.set_defaults(handler=run.run, before="pipellm trace record -o FILE")
    for verb, summary in (
        ("show", "what was recorded, in words or as a picture"),
        ("stats", "how often each predictor would have foreseen the next swap-in"),
        ("replay", "ask the same of the device again, under other policies"),
    ):
        parser = verbs.add_parser(verb, help=summary, description=summary, allow_abbrev=False)
        parser.add_argument("file", metavar="FILE", type=Path)
        parser.add_argument(
            "--number",
            type=int,
            metavar="N",
            help="which trace, where several processes or devices were recorded "
            "(default: the one that copied most)",
        )
        parser.set_defaults(handler=partial(_trace, verb))
        if verb == "show":
            parser.add_argument(
                "-o", "--output", metavar="PICTURE", type=Path, help="draw it: .png, .svg or .pdf"
            )
        if verb == "replay":
            parser.add_argument("--profile", default=DEFAULT_PROFILE, help="as in `pipellm bench`")
            parser.add_argument(
                "--policy",
                action="append",
                default=[],
                help="as in `pipellm bench`; may be given several times (default: all)",
            )
            parser.add_argument(
                "--no-idle",
                dest="idle",
                action="store_false",
                help="leave out the host's own time, as if the program were always ready",
            )


def _trace(verb: str, arguments: argparse.Namespace) -> int:
    from pipellm.trace import commands

    return commands.VERBS[verb](arguments)
