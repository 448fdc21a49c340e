"""Whole programs under `pipellm run`, as a user starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples.vllm import model

POLICIES = ("off", "serial", "auto")
"""Those that whole systems run under; `auto` takes `prefetch` here."""

REPOSITORY = Path(__file__).parents[2]


@dataclass
class Launcher:
    """Runs Python programs with the device under them, and reads what the statistics say."""

    folder: Path

    def __call__(
        self,
        source: str,
        *arguments: str,
        policy: str,
        profile: str = "fast",
        gpu: str = "emulated",
        options: Sequence[str] = (),
        python: Sequence[str] = (sys.executable,),
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        program = self.folder / "program.py"
        program.write_text(source)
        command = [
            *(sys.executable, "-m", "pipellm", "run", "--gpu", gpu, "--profile", profile),
            *("--policy", policy, "--stats", str(self.folder / "stats.json"), "--quiet"),
            *(*options, "--", *python, str(program), *arguments),
        ]
        return subprocess.run(
            command,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(REPOSITORY),
                **(environment or {}),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    @property
    def statistics(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "stats.json").read_text())
        return content


@pytest.fixture(scope="session")
def vllm_model() -> Path:
    """The model of the examples, made if it is missing."""
    return model.made(REPOSITORY / "build" / "vllm")


@pytest.fixture
def launch(tmp_path: Path) -> Launcher:
    return Launcher(tmp_path)
