"""`pipellm run --attach libcrypto`, and `pipellm.enable(attach=...)`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def statistics(tmp_path: Path, *command: str | Path) -> tuple[dict[str, Any], str]:
    """What a run on one's own GPU leaves, and what it says on standard error."""
    options = ["--gpu", "own", "--attach", "libcrypto", "--stats", str(tmp_path / "stats.json")]
    run = [sys.executable, "-m", "pipellm", "run", *options, "--", *map(str, command)]
    said = subprocess.run(run, capture_output=True, text=True, check=True).stderr
    return json.loads((tmp_path / "stats.json").read_text()), said


def test_statistics_say_what_the_provider_served(native_program: Path, tmp_path: Path) -> None:
    report, said = statistics(tmp_path, "sh", "-c", f"{native_program}; {native_program}")
    assert (report["gpu"], report["policy"], report["profile"]) == ("own", None, None)
    assert report["attached"] == ["libcrypto"]
    assert (report["provider"]["updates"], report["provider"]["bytes"]) == (6, 6 << 20)
    assert [process["bytes"] for process in report["provider"]["processes"]] == [3 << 20] * 2
    assert "h2d" not in report
    assert report["elapsed_s"] > 0
    assert said.startswith("pipellm: own GPU: the provider sealed or opened 6.29 MB for 2 process")


def test_statistics_survive_a_program_that_is_killed(native_program: Path, tmp_path: Path) -> None:
    script = f"{sys.executable} -c 'import os, ssl; os.kill(os.getpid(), 9)'; {native_program}"
    report, _ = statistics(tmp_path, "sh", "-c", script)
    assert len(report["provider"]["processes"]) == 2
    assert report["provider"]["bytes"] == 3 << 20


def test_nothing_attached_is_said(tmp_path: Path) -> None:
    report, said = statistics(tmp_path, "true")
    assert report["provider"] is None
    (line,) = said.splitlines()
    assert line.startswith("pipellm: warning: nothing was attached to libcrypto")


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
