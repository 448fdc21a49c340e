"""The command line: finds the sub-command and hands over; every UserError ends here.

Each sub-command is a file with `add`, which describes its arguments. What does the work is imported
when it is asked for, so that `pipellm run` starts at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pipellm import __version__
from pipellm.cli import bench, doctor, report, run, simulate, trace
from pipellm.cli.parser import Parser
from pipellm.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (without the program's name) and returns the exit status."""
    try:
        parser = _parser()
        arguments = parser.parse_args(argv)
        status: int = arguments.handler(arguments)
        return status
    except UserError as error:
        print(f"pipellm: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        sys.excepthook = lambda *_: None
        raise


def _parser() -> Parser:
    parser = Parser(
        prog="pipellm", description="Runs unmodified LLM programs on confidential GPUs."
    )
    parser.add_argument("--version", action="version", version=f"pipellm {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (run, bench, trace, simulate, report, doctor):
        command.add(commands)
    return parser
