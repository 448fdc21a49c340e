"""A program that runs modules, each time in a forked child: what the first needs is imported once.

    python -m tests.systems.runs_of_module JSON

JSON is a list of command lines, each a module and its arguments. Each child is a process with a
device of its own, and begins with the line `run N`. The first that fails is the last.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import runpy
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from examples import launch, process
from examples.launch import Crossings


def run(
    command_lines: Sequence[Sequence[str]],
    policy: str,
    folder: Path,
    environment: Mapping[str, str],
) -> list[tuple[str, Crossings]]:
    """Has them run under one policy: what each printed, and what crossed the link meanwhile."""
    output, _ = launch.run(
        ["-m", "tests.systems.runs_of_module", json.dumps(command_lines)],
        policy,
        "fast",
        folder,
        environment={"PYTHONPATH": str(process.ROOT), **environment},
    )
    said = re.split(r"^run \d+$", output, flags=re.M)[1:]
    _, *processes = json.loads((folder / "statistics.json").read_text())["processes"]
    return list(zip(said, map(launch.crossings_of, processes), strict=True))


def main() -> None:
    command_lines = json.loads(sys.argv[1])
    importlib.import_module(command_lines[0][0])
    for number, (module, *arguments) in enumerate(command_lines):
        print(f"run {number}", flush=True)
        pid = os.fork()
        if pid == 0:
            sys.argv = [module, *arguments]
            warnings.filterwarnings("ignore", ".*found in sys.modules after import of package")
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            return
        _, status = os.waitpid(pid, 0)
        if status != 0:
            sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
