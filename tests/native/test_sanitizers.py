"""The native core under the sanitizers: no race, no leak, no byte out of bounds."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests import compiled

SCENES = ("clients", "lost", "failing", "signals", "forks", "shutdown")
"""What native/testing plays: many clients, contexts lost over each message of a copy, a runtime
that fails, signals, forks in mid-copy, the end with work outstanding, and copies after it."""


@pytest.mark.long
@pytest.mark.parametrize("sanitizers", ["thread", "address,undefined"])
def test_the_native_core_is_clean_whatever_happens_to_it(sanitizers: str) -> None:
    folder = compiled.with_cmake(
        f"core-{sanitizers}",
        ".",
        f"-DPIPELLM_SANITIZE={sanitizers}",
        f"-DPython_EXECUTABLE={sys.executable}",
        targets="pipellm_stress",
    )
    options = "halt_on_error=1:detect_leaks=1"
    environment = os.environ | {"TSAN_OPTIONS": "halt_on_error=1", "ASAN_OPTIONS": options}
    run = subprocess.run(
        [folder / "pipellm_stress"], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [f"{scene}: ok" for scene in SCENES]
