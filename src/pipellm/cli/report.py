"""`pipellm report`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipellm.cli.parser import Commands


def add(commands: Commands) -> None:
    report = commands.add_parser(
        "report",
        help="make one page of the results in a folder",
        description="Makes one self-contained HTML page of the JSON files in DIR that "
        "`pipellm bench`, `simulate` and `doctor` wrote with --json.",
        epilog="example:\n  pipellm report results -o results.html",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    report.add_argument("folder", type=Path, metavar="DIR", help="where the JSON files are")
    report.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the page (default: DIR/report.html)"
    )
    report.add_argument(
        "--markdown", type=Path, metavar="FILE.md", help="write the tables as Markdown as well"
    )
    report.set_defaults(handler=_report)


def _report(arguments: argparse.Namespace) -> int:
    from pipellm.report.command import run

    return run(arguments.folder, arguments.output, arguments.markdown)
