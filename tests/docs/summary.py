"""Ends a test run with the commands of the documentation that were run, and how many."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    properties = [
        (name, str(value))
        for report in terminalreporter.getreports("passed")
        if report.when == "call"
        for name, value in report.user_properties
    ]
    ran = [value for name, value in properties if name == "command run"]
    left = [value for name, value in properties if name == "command not run"]
    if not ran:
        return
    terminalreporter.section(f"{len(ran)} commands of the documentation run, {len(left)} not")
    for command in ran:
        terminalreporter.line(command)
    for command in left:
        terminalreporter.line(f"not run: {command}")
