"""Running one piece of an example as a process of its own, its output shown while it comes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # where `examples` can be imported from
_LAST_LINES = 15
_PATIENCE = 5.0  # seconds


class PieceError(Exception):
    """A piece ended with a status other than 0; the message is what a user should read."""


def run(
    command: Sequence[str],
    log: Path,
    on_line: Callable[[str], None] = lambda line: None,
    cwd: Path = ROOT,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Runs `command` to its end and returns what it wrote to stdout and stderr.

    `on_line` is called with every line as it comes; `log` keeps them all; `environment` is added to
    ours. Raises PieceError with the last lines. An interrupt ends the process too.
    """
    ours = {**os.environ, "PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1"}
    with (
        open(log, "w") as file,
        subprocess.Popen(
            command,
            cwd=cwd,
            env={**ours, **(environment or {})},
            start_new_session=True,  # its children end with it
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        lines = []
        try:
            for line in process.stdout:
                lines.append(line)
                file.write(line)
                on_line(line.rstrip())
        except BaseException:
            _end(process)
            raise
    if process.returncode != 0:
        last = "".join(lines[-_LAST_LINES:]).rstrip()
        raise PieceError(f"{last}\n{_readable(command)} ended with {process.returncode} ({log})")
    return "".join(lines)


def _end(process: subprocess.Popen[str]) -> None:
    """Interrupts a process and its children, which lets them clean up; kills what does not heed."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def _readable(command: Sequence[str]) -> str:
    return " ".join("python" if word == sys.executable else word for word in command[:8]) + " …"
