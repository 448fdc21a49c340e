"""Standard output that is full, closed or knows no Unicode: one line, or a quiet end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.trace.record import DATA

COMMANDS = {
    "doctor": ["doctor"],
    "doctor --json": ["doctor", "--json"],
    "simulate": ["simulate", "--profile", "h100", "--system", "peft", "--model", "opt-13b"],
    "trace show": ["trace", "show", str(DATA / "peft.trace")],
    "--help": ["--help"],
    "bench --help": ["bench", "--help"],
}
every_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
FULL = "pipellm: cannot write to standard output: No space left on device"


def run(command: list[str], output: int, **environment: str) -> tuple[int, list[str]]:
    """Status, and the lines of standard error but for those that tell progress."""
    done = subprocess.run(
        [sys.executable, "-m", "pipellm", *command],
        stdout=output,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
        text=True,
        timeout=300,
    )
    return done.returncode, [line for line in done.stderr.splitlines() if line[2:3] != ":"]


@every_command
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_standard_output_is_told_in_one_line(command: list[str], unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        assert run(command, full.fileno(), PYTHONUNBUFFERED=unbuffered) == (1, [FULL])


@every_command
def test_it_ends_quietly_if_nobody_reads_on(command: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert run(command, writer) == (-signal.SIGPIPE, [])
    finally:
        os.close(writer)


@every_command
def test_a_locale_without_unicode_is_good_enough(command: list[str]) -> None:
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    status, said = run(command, subprocess.DEVNULL, **environment)
    assert (status in (0, 1), said) == (True, [])
