"""The types hold. A test, so that it runs beside the others."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.compiled import REPOSITORY


@pytest.mark.long
def test_mypy_finds_nothing() -> None:
    mypy = [sys.executable, "-m", "mypy", "--no-pretty", "--no-error-summary"]
    said = subprocess.run(mypy, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (said.stdout + said.stderr, said.returncode) == ("", 0)
