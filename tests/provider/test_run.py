"""`pipellm run --attach libcrypto`, and `pipellm.enable(attach=...)`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pipellm_run(*command: str | Path, options: tuple[str, ...] = ()) -> list[str]:
    run = [sys.executable, "-m", "pipellm", "run", *options, "--", *map(str, command)]
    result = subprocess.run(run, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.fixture
def native_program(tmp_path: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler
    program = tmp_path / "dlopened"
    subprocess.run([compiler, "-o", program, HERE / "dlopened.c", "-ldl"], check=True)
    return program


def test_a_native_program_seals_through_pipellm_and_the_same_bytes(native_program: Path) -> None:
    plain = subprocess.check_output([native_program], text=True).split()
    attached = pipellm_run(native_program, options=("--gpu", "own", "--attach", "libcrypto"))
    assert [plain[0], attached[0]] == ["default", "pipellm"]
    assert plain[1] == attached[1]


def test_nothing_is_left_behind(native_program: Path, tmp_path: Path) -> None:
    before = set(os.listdir(tmp_path))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "pipellm", "run", "--gpu", "own", "--attach", "libcrypto"]
    subprocess.run([*command, "--", native_program], env=environment, check=True)
    assert set(os.listdir(tmp_path)) == before


ENABLED = """
import pipellm, torch
pipellm.enable(profile="fast", policy="serial", attach="libcrypto")
from pipellm.attach.libcrypto import serving_provider
sent = torch.arange(1 << 20)
print(serving_provider("AES-256-GCM"), torch.equal(sent.cuda().cpu(), sent))
"""


def test_a_python_program_can_ask_for_it_itself() -> None:
    said = subprocess.run(
        [sys.executable, "-c", ENABLED], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["pipellm", "True"]
