"""`pipellm.enable()` does inside a program what `pipellm run` does around it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.attach.conftest import World


def run(world: World, source: str) -> subprocess.CompletedProcess[str]:
    program = world.write("program.py", source)
    return subprocess.run(
        [sys.executable, str(program)],
        cwd=world.path,
        env=world.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "order", ["import torch; pipellm.enable()", "pipellm.enable(); import torch"]
)
def test_before_or_after_the_import_of_torch(world: World, order: str) -> None:
    result = run(world, f"import pipellm; {order}; torch.copy(1)")
    assert (result.returncode, result.stderr) == (0, "")
    (installed,) = world.installed()
    assert (installed["policy"], installed["profile"]) == ("auto", "h100")


def test_a_second_call_with_the_same_settings_does_nothing(world: World) -> None:
    result = run(
        world,
        "import pipellm\n"
        "pipellm.enable(profile='fast', policy='off', stats='stats.json')\n"
        "pipellm.enable(profile='fast', policy='off', stats='stats.json')\n"
        "pipellm.enable('emulated:1', 'fast', 'off')\n",
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert len(world.installed()) == 1


@pytest.mark.parametrize(
    "other", ["gpu='emulated:2'", "profile='fast'", "policy='off'", "stats='other.json'"]
)
def test_other_settings_are_refused(world: World, other: str) -> None:
    result = run(world, f"import pipellm; pipellm.enable(); pipellm.enable({other})")
    assert result.stderr.splitlines()[-1] == (
        "pipellm.errors.UserError: PipeLLM already runs here with other settings "
        "(gpu emulated:1, profile h100, policy auto)"
    )


@pytest.mark.parametrize("bad", ["gpu='cpu'", "profile='none'", "policy='none'", "stats='no/x'"])
def test_bad_settings_are_refused_and_leave_nothing(world: World, bad: str) -> None:
    result = run(
        world,
        f"""
import pipellm
try:
    pipellm.enable({bad})
except pipellm.UserError:
    print("refused")
""",
    )
    assert (result.stdout, result.stderr) == ("refused\n", "")
    assert world.installed() == []
    assert world.temporary_files() == []


INTERRUPTED = """
import signal, pipellm
from pipellm.gpu import emulated

def interrupted(settings, statistics):
    signal.raise_signal(signal.SIGUSR1)
    install(settings, statistics)

install, emulated.install = emulated.install, interrupted
"""


def test_a_signal_handler_may_ask_while_its_thread_attaches(world: World) -> None:
    result = run(
        world,
        INTERRUPTED
        + """
def ask(*_):
    pipellm.enable(policy="off")
    try:
        pipellm.enable(policy="serial")
    except pipellm.UserError:
        print("refused")

signal.signal(signal.SIGUSR1, ask)
pipellm.enable(policy="off")
""",
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "refused\n", "")
    assert len(world.installed()) == 1


def test_a_program_may_ask_again_after_a_signal_handler_has_raised(world: World) -> None:
    result = run(
        world,
        INTERRUPTED
        + """
signal.signal(signal.SIGUSR1, signal.default_int_handler)
try:
    pipellm.enable(policy="off")
except KeyboardInterrupt:
    emulated.install = install
    pipellm.enable(policy="serial")
""",
    )
    assert (result.returncode, result.stderr) == (0, "")
    (installed,) = world.installed()
    assert installed["policy"] == "serial"


def test_statistics_are_written_at_the_end_with_those_of_forked_children(world: World) -> None:
    result = run(
        world,
        """
import os, pipellm
pipellm.enable(stats="stats.json")
import torch
torch.copy(1)
if os.fork() == 0:
    torch.copy(10)
    raise SystemExit  # runs what its parent registered to run at exit
os.wait()
os.chdir("/")
""",
    )
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(world.stats.read_text())
    assert report["h2d"] == {"transfers": 2, "bytes": 11, "swaps": 0}
    assert len(report["processes"]) == 2
    assert world.temporary_files() == []


def test_a_device_that_cannot_be_had_leaves_nothing(world: World) -> None:
    stub = (world.site / "sitecustomize.py").read_text()
    world.write(
        "site/sitecustomize.py", stub + "\ndef fail(*_): raise RuntimeError\ndevice.install = fail"
    )
    result = run(world, "import pipellm; pipellm.enable(stats='stats.json')")
    assert "RuntimeError" in result.stderr
    assert not world.stats.exists()
    assert world.temporary_files() == []


def test_a_launched_program_may_ask_for_what_it_has(world: World) -> None:
    result = world.python(
        "import pipellm; pipellm.enable(profile='fast'); import torch; torch.copy(1)",
        *("--profile", "fast"),
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert world.report()["h2d"]["bytes"] == 1
    assert len(world.installed()) == 1


def test_a_launched_program_may_not_ask_for_something_else(world: World) -> None:
    result = world.python("import pipellm; pipellm.enable(policy='off')")
    assert result.returncode == 1
    assert "PipeLLM already runs here with other settings" in result.stderr


def test_enabling_while_another_thread_imports_torch(world: World) -> None:
    result = world.python(
        """
import threading, pipellm
threads = [threading.Thread(target=target, args=args)
           for target, args in [(pipellm.enable, ()), (__import__, ("torch",))] * 4]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert len(world.installed()) == 1
