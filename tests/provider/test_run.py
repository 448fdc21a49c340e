"""`pipellm run --attach libcrypto`, and `pipellm.enable(attach=...)`."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
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


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_left_behind_but_the_configuration(native_program: Path, tmp_path: Path) -> None:
    before = files_below(tmp_path)
    cache = tmp_path / "cache"
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PIPELLM_CACHE": str(cache)}
    command = [sys.executable, "-m", "pipellm", "run", "--gpu", "own", "--attach", "libcrypto"]
    for _ in range(2):
        subprocess.run([*command, "--", native_program], env=environment, check=True)
    (configuration,) = files_below(tmp_path) - before
    assert configuration.parent == cache
    assert list((tmp_path / f"pipellm-{os.geteuid()}").iterdir()) == []


# Waits for the run to be over, then starts the program as a daemon's worker would be started.
OUTLIVING = """
import json, os, pathlib, subprocess, sys, time
while os.path.exists(os.environ["PIPELLM_STATS_DIR"]):
    time.sleep(0.01)
served = subprocess.run([sys.argv[1]], capture_output=True, text=True).stdout.split()
names = ("OPENSSL_CONF", "PIPELLM_STATS_DIR")
seen = {"served by": served[0], **{name: os.environ[name] for name in names}}
pathlib.Path(sys.argv[2] + ".part").write_text(json.dumps(seen))
os.rename(sys.argv[2] + ".part", sys.argv[2])
"""


def test_a_daemon_that_outlives_the_run_finds_its_own_files_or_none(
    native_program: Path, tmp_path: Path
) -> None:
    program, seen = tmp_path / "daemon.py", tmp_path / "seen"
    program.write_text(OUTLIVING)
    start = f"{sys.executable} {program} {native_program} {seen} </dev/null >/dev/null 2>&1 &"
    pipellm_run("sh", "-c", start, options=("--gpu", "own", "--attach", "libcrypto"))
    deadline = time.monotonic() + 60
    while not seen.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    found = json.loads(seen.read_text())
    assert found["served by"] == "pipellm"
    # Nobody else can make the one anew, or change the other.
    statistics = Path(found["PIPELLM_STATS_DIR"])
    assert not statistics.exists()
    for folder in (statistics.parent, Path(found["OPENSSL_CONF"]).parent):
        assert folder.stat().st_uid == os.geteuid()
        assert not folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def test_a_cache_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o770)
    run = [sys.executable, "-m", "pipellm", "run", "--gpu", "own", "--attach", "libcrypto"]
    environment = {**os.environ, "PIPELLM_CACHE": str(tmp_path)}
    result = subprocess.run([*run, "--", "true"], env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"pipellm: others may write to the cache folder {tmp_path}")


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
