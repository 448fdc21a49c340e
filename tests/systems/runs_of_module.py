"""A program that runs a module several times, each time in a forked child: it is imported once.

    python -m tests.systems.runs_of_module MODULE JSON

JSON is a list of command lines for the module. Each child is a process with a device of its own,
and begins with the line `run N`. The first that fails is the last.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
import warnings


def main() -> None:
    module, command_lines = sys.argv[1], json.loads(sys.argv[2])
    importlib.import_module(module)
    for number, arguments in enumerate(command_lines):
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
