"""`pipellm doctor`."""

from __future__ import annotations

import argparse

from pipellm.cli.parser import Commands


def add(commands: Commands) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="say what this machine is, and what it lacks",
        description="Says what this machine is, as far as PipeLLM cares, and what to do about what "
        "it lacks. Ends with status 1 if something does not work.",
        allow_abbrev=False,
    )
    doctor.add_argument("--json", action="store_true", help="for a program, or to send to somebody")
    doctor.set_defaults(handler=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from pipellm.doctor import checks, probe, report

    machine = probe.read()
    findings = checks.examine(machine)
    if arguments.json:
        print(report.as_json(machine, findings))
    else:
        report.print_table(findings, Console())
    return report.exit_status(findings)
