"""The native core under the sanitizers: no race, no leak, no byte out of bounds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("sanitizers", ["thread", "address,undefined"])
def test_many_clients_at_once_are_clean(sanitizers: str, tmp_path: Path) -> None:
    cmake = shutil.which("cmake")
    assert cmake, "cmake comes with `make setup`"
    configure = [
        cmake,
        *("-S", str(REPOSITORY), "-B", str(tmp_path)),
        f"-DPIPELLM_SANITIZE={sanitizers}",
        f"-DPython_EXECUTABLE={sys.executable}",
    ]
    build = [cmake, "--build", str(tmp_path), "--target", "pipellm_stress", "--parallel", "2"]
    for command in (configure, build):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    options = "halt_on_error=1:detect_leaks=1"
    environment = os.environ | {"TSAN_OPTIONS": "halt_on_error=1", "ASAN_OPTIONS": options}
    run = subprocess.run(
        [tmp_path / "pipellm_stress"], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "stress: ok\n"
