from __future__ import annotations

import os
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from . import emulated_gpu
from .fork_server import ForkServer

HERE = Path(__file__).parent
HEADERS = HERE.parents[1] / "native"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of fake_driver.cpp; programs that the tests start find it too."""
    library = tmp_path_factory.mktemp("fake_driver") / "fake_driver.so"
    flags = ["-std=c++20", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"]
    source = HERE / "fake_driver.cpp"
    subprocess.run(
        [os.environ.get("CXX", "c++"), *flags, f"-I{HEADERS}", source, "-o", library], check=True
    )
    os.environ[emulated_gpu.FAKE_DRIVER] = str(library)
    return library


@pytest.fixture(scope="session")
def gpu(fake_driver: Path) -> emulated_gpu.Gpu:
    """The emulated GPU, in the tests' own process: for good, as installing is once per process."""
    return emulated_gpu.install()


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def run_program(fake_driver: Path, fork_server: ForkServer, tmp_path: Path) -> Run:
    """Runs a Python program's text in a process of its own that has the emulated GPU.

    It is forked from one that has imported torch, or started by `launcher`: Python, or torchrun.
    """

    def run(
        source: str,
        *launcher: str,
        environment: dict[str, str] | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        program = tmp_path / "program.py"
        program.write_text(textwrap.dedent(source))
        environment = {**os.environ, **(environment or {})}
        if not launcher:
            return fork_server.run(program, tmp_path, environment, timeout)
        return subprocess.run(
            [*launcher, str(HERE / "emulated_gpu.py"), str(program)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run
