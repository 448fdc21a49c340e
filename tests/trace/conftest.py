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
    """Records a Python program's text, in processes of its own."""

    def run(source: str, *options: str, status: int = 0) -> Recording:
        program = tmp_path / "program.py"
        program.write_text(textwrap.dedent(source))
        target = tmp_path / "program.trace"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pipellm", "trace", "record", "-o", str(target)),
                *("--profile", "fast", *options, "--", sys.executable, str(program)),
            ],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == status, done.stderr
        return load(target)

    return run
