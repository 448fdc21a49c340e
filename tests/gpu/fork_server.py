"""Programs' processes, forked from one that has imported torch: importing it takes a core 1.6 s.

A child is what `python emulated_gpu.py PROGRAM` would be: before the fork nothing was installed, no
thread was started and nothing asked for CUDA; and it ends as Python ends. What Python reads when it
starts (PYTHONWARNINGS) it has from the server.

As a program, this file is the server: it answers each line of standard input, a request, by a line
with the program's pid, and when that has ended, by one with its status.
"""

from __future__ import annotations

import json
import os
import runpy
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).parent


class ForkServer:
    """One for a process of tests. `close` ends it; so does the end of its owner."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self, program: Path, folder: Path, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Runs it to its end, in `folder`, where its output is kept.

        Raises subprocess.TimeoutExpired, with the program killed, after `timeout` seconds.
        """
        output, errors = folder / "output.txt", folder / "errors.txt"
        request = {
            "arguments": [str(HERE / "emulated_gpu.py"), str(program)],
            "folder": str(folder),
            "environment": dict(environment),
            "output": [str(output), str(errors)],
        }
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        pid = self._answer(60)
        try:
            status = self._answer(timeout)
        except subprocess.TimeoutExpired:
            os.kill(pid, signal.SIGKILL)
            self._answer(60)
            raise
        return subprocess.CompletedProcess(
            [str(program)], status, output.read_text(), errors.read_text()
        )

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self, timeout: float) -> int:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout):
                raise subprocess.TimeoutExpired("a forked program", timeout)
        return int(self._process.stdout.readline())


def serve(requests: IO[str], answers: IO[str]) -> dict[str, Any] | None:
    """Returns in each child, with its request; and in the server, without one, at the end."""
    # Lines are read one at a time: nothing is left in a buffer that a child would have, too.
    for line in iter(requests.readline, ""):
        request: dict[str, Any] = json.loads(line)
        pid = os.fork()
        if pid == 0:
            return request
        print(pid, file=answers, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
    return None


def become(request: dict[str, Any]) -> None:
    """Makes this child the process that was asked for."""
    for number, path in enumerate(request["output"], start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["arguments"]


if __name__ == "__main__":
    import torch  # noqa: F401

    if (request := serve(sys.stdin, sys.stdout)) is not None:
        become(request)
        runpy.run_path(sys.argv[0], run_name="__main__")
