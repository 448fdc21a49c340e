from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from pipellm.trace import Recording, load

REPOSITORY = Path(__file__).parents[2]

Record = Callable[..., Recording]


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Records a Python program's text, in processes of its own. If `typed`, Python reads it from
    its standard input."""

    def run(source: str, *options: str, status: int = 0, typed: bool = False) -> Recording:
        program = tmp_path / "program.py"
        program.write_text(textwrap.dedent(source))
        arguments = [] if typed else [str(program)]
        target = tmp_path / "program.trace"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pipellm", "trace", "record", "-o", str(target)),
                *("--profile", "fast", *options, "--", sys.executable, *arguments),
            ],
            input=program.read_text() if typed else None,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == status, done.stderr
        return load(target)

    return run
