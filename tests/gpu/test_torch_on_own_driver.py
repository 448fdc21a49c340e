"""What the backend does over the fake driver it does over PipeLLM's own, whatever the policy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .emulated_gpu import POLICY

HERE = Path(__file__).parent

# What these look at lies above the driver.
ABOVE = {"test_torch_compile.py", "test_torch_opinfo.py", Path(__file__).name}
EVERYTHING = sorted({path.name for path in HERE.glob("test_torch_*.py")} - ABOVE)
# Without the tests of pinned memory, which is none under confidential computing, and of processes.
CONFIDENTIALLY = ["test_torch_copies.py", "test_torch_models.py", "test_torch_streams.py"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("policy", "tests"), [("off", EVERYTHING), ("serial", CONFIDENTIALLY)], ids=["off", "serial"]
)
def test_all_of_it_holds(policy: str, tests: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=HERE,
        env={**os.environ, POLICY: policy},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
