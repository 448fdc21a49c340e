"""`--stats` tells what the copies came to, however the program ended."""

from __future__ import annotations

import sys
import time

import pytest

from tests.attach.conftest import World


def test_a_report_has_all_that_a_reader_needs(world: World) -> None:
    result = world.python("import torch; torch.copy(1000)", "--profile", "fast")
    assert result.returncode == 0
    report = world.report()
    (process,) = report.pop("processes")
    assert 0 < report.pop("elapsed_s") < 60
    assert report == {
        "policy": "auto",
        "chosen": None,
        "profile": "fast",
        "gpu": "emulated",
        "attached": [],
        "provider": None,
        "engine": "stub",
        "h2d": {"transfers": 1, "bytes": 1000, "swaps": 0},
        "d2h": {"transfers": 0, "bytes": 0, "swaps": 0},
        "auth_failures": 0,
        "emulation_s": 0.0,
        "waited_s": 0.0,
        "exit_status": 0,
        "signal": None,
    }
    assert process.pop("pid") == world.installed()[0]["pid"]
    assert process.pop("argv") == [sys.executable, str(world.path / "program.py")]
    assert process == {
        "policy": "auto",
        "chosen": None,
        "because": None,
        "profile": "fast",
        "engine": "stub",
        "devices": 1,
        "h2d": {"transfers": 1, "bytes": 1000, "swaps": 0},
        "d2h": {"transfers": 0, "bytes": 0, "swaps": 0},
        "auth_failures": 0,
        "emulation_s": 0.0,
        "waited_s": 0.0,
    }


@pytest.mark.parametrize(
    ("ending", "exit_status", "signal"),
    [
        ("raise RuntimeError", 1, None),
        ("import os; os._exit(5)", 5, None),
        ("import os; os.kill(os.getpid(), 9)", None, "SIGKILL"),
        ("import os; os.kill(os.getpid(), 11)", None, "SIGSEGV"),
        ("import os; os.execlp('sh', 'sh', '-c', 'exit 4')", 4, None),
    ],
)
def test_a_report_survives_every_end(
    world: World, ending: str, exit_status: int | None, signal: str | None
) -> None:
    world.python(f"import torch; torch.copy(1000); {ending}")
    report = world.report()
    assert report["h2d"]["bytes"] == 1000
    assert (report["exit_status"], report["signal"]) == (exit_status, signal)
    assert world.temporary_files() == []


def test_the_processes_of_a_program_are_added_up(world: World) -> None:
    world.python(
        """
import os, subprocess, sys, torch
torch.copy(1)
if len(sys.argv) < 4:
    subprocess.run([sys.executable, *sys.argv, "again"], check=True)
"""
    )
    report = world.report()
    assert report["h2d"]["transfers"] == 4
    assert [process["argv"].count("again") for process in report["processes"]] == [0, 1, 2, 3]


def test_a_program_without_torch_has_a_report_of_nothing(world: World) -> None:
    assert world.python("").returncode == 0
    report = world.report()
    assert report["h2d"] == report["d2h"] == {"transfers": 0, "bytes": 0, "swaps": 0}
    assert (report["engine"], report["processes"]) == (None, [])


def test_a_process_that_outlives_the_run_goes_on(world: World) -> None:
    world.write(
        "late.py",
        """
import os, pathlib, time
while os.path.exists(os.environ["PIPELLM_STATS_DIR"]): time.sleep(0.01)
import torch
torch.copy(1)
pathlib.Path("late.part").write_text("done")
os.rename("late.part", "late")
""",
    )
    result = world.python(
        "import subprocess, sys; subprocess.Popen([sys.executable, 'late.py'], stdin=-3, "
        "stdout=-3, stderr=-3)"
    )
    assert result.returncode == 0
    late = world.path / "late"
    deadline = time.monotonic() + 30
    while not late.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert late.read_text() == "done"


def test_an_old_report_is_replaced_through_its_link(world: World) -> None:
    real = world.write("real.json", "old")
    world.stats.symlink_to(real)
    assert world.python("import torch").returncode == 0
    assert world.stats.is_symlink()
    assert real.read_text().startswith("{")


def test_nothing_is_written_without_the_option(world: World) -> None:
    program = world.write("program.py", "import torch")
    before = set(world.path.iterdir())
    assert world.run(sys.executable, program).returncode == 0
    assert set(world.path.iterdir()) - before == {world.path / "installed.log"}
    assert world.temporary_files() == []
