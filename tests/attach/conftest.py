"""A small world for the launcher: a torch and a device that are nothing but a stub.

The stub device is put in place by a `sitecustomize.py` that the programs find on their path, so the
product is run as it is: the real command line, the real bootstrap, real processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import pipellm

SOURCES = Path(pipellm.__file__).parents[1]

TORCH = """
BODY_RAN = True
"""

DEVICE = """
import json, os, sys, types

def install(settings, statistics):
    torch = sys.modules["torch"]
    def copy(nbytes):
        statistics.counters[0] += 1
        statistics.counters[1] += nbytes
    torch.copy = copy
    statistics.describe(engine="stub")
    seen = dict(pid=os.getpid(), body_ran=torch.BODY_RAN, policy=settings.policy,
                profile=settings.profile, gpus=settings.gpus)
    with open({log!r}, "a") as log:
        log.write(json.dumps(seen) + "\\n")

device = types.ModuleType("pipellm.gpu.emulated")
device.__path__ = [{package!r}]
device.install = install
sys.modules[device.__name__] = device
sys.existing_sitecustomize_ran = True
"""


@dataclass
class World:
    """A directory that programs run in."""

    path: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def stats(self) -> Path:
        return self.path / "stats.json"

    @property
    def site(self) -> Path:
        """Where torch and sitecustomize are."""
        return self.path / "site"

    def write(self, name: str, source: str) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
        return file

    def pipellm_run(self, command: Sequence[str | Path], *options: str) -> list[str]:
        run = [sys.executable, "-m", "pipellm", "run", "--quiet", *options]
        return [*run, "--", *map(str, command)]

    def run(
        self,
        *command: str | Path,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program under `pipellm run` to its end."""
        return subprocess.run(
            self.pipellm_run(command, *options),
            cwd=self.path,
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def python(self, source: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Runs a Python program under `pipellm run --stats` to its end."""
        file = self.write("program.py", source)
        return self.run(sys.executable, file, options=["--stats", str(self.stats), *options])

    def report(self) -> dict[str, Any]:
        report = json.loads(self.stats.read_text())
        assert isinstance(report, dict)
        return report

    def installed(self) -> list[dict[str, Any]]:
        """What the device was told, once per process that it was installed in."""
        log = self.path / "installed.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def files(self) -> set[Path]:
        """All that is here, but for compiled modules and the folder that stays (`own_folder`)."""
        stays = self.path / "tmp" / f"pipellm-{os.geteuid()}"
        found = (path for path in self.path.rglob("*") if "__pycache__" not in path.parts)
        return {path for path in found if path != stays}

    def temporary_files(self) -> list[Path]:
        return sorted(path for path in self.files() if self.path / "tmp" in path.parents)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.write("site/torch/__init__.py", TORCH)
    package = Path(pipellm.__file__).parent / "gpu" / "emulated"
    device = DEVICE.format(log=str(tmp_path / "installed.log"), package=str(package))
    world.write("site/sitecustomize.py", device)
    (tmp_path / "tmp").mkdir()
    world.environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(world.site), str(SOURCES)]),
        "TMPDIR": str(tmp_path / "tmp"),
    }
    return world
