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
from pipellm.terminal.output import ClosedOutputError, FullOutputError, complain, standard_output


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (without the program's name) and returns the exit status.

    Dies of the signals that other programs die of there: SIGINT on Ctrl-C, SIGPIPE if nobody reads
    what it writes.
    """
    try:
        with standard_output():
            return _run(argv)
    except UserError as error:
        complain(str(error))
        return 2
    except FullOutputError as error:
        complain(str(error))
        return 1
    except ClosedOutputError as error:
        return error.die()
    except KeyboardInterrupt:
        # Python ends as the signal ends a program, but would show where it was.
        sys.excepthook = lambda *_: None
        raise


def _run(argv: Sequence[str] | None) -> int:
    arguments = parser().parse_args(argv)
    status: int = arguments.handler(arguments)
    return status


def parser() -> Parser:
    """The whole command line."""
    made = Parser(prog="pipellm", description="Runs unmodified LLM programs on confidential GPUs.")
    made.add_argument("--version", action="version", version=f"pipellm {__version__}")
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    for command in (run, bench, trace, simulate, report, doctor):
        command.add(commands)
    return made
