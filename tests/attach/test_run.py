"""`pipellm run` gets under every shape of program, and is the program to whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import venv

import pytest

from pipellm.gpu.emulated.profile import PROFILES
from tests.attach.conftest import World

COPY = "import torch; torch.copy(1000)"


@pytest.mark.parametrize("status", [0, 1, 3, 255])
def test_the_exit_status_is_the_programs(world: World, status: int) -> None:
    assert world.run(sys.executable, "-c", f"raise SystemExit({status})").returncode == status


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGRTMIN]
)
def test_the_launcher_dies_of_the_signal_that_the_program_died_of(
    world: World, number: signal.Signals
) -> None:
    result = world.run("sh", "-c", f"kill -{int(number)} $$")
    assert result.returncode == -number
    assert world.temporary_files() == []


def test_standard_files_are_the_programs(world: World) -> None:
    source = "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.stderr.write('warned')"
    result = subprocess.run(
        world.pipellm_run([sys.executable, "-c", f"{COPY}; {source}"]),
        env=world.environment,
        input="text",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.stdout, result.stderr) == ("TEXT", "warned")


def test_files_that_a_shell_passes_by_number_reach_the_program(world: World) -> None:
    command = " ".join(world.pipellm_run(["cat"])) + " <(echo passed)"
    result = subprocess.run(
        ["bash", "-c", command], env=world.environment, capture_output=True, text=True, timeout=60
    )
    assert result.stdout == "passed\n"


def test_a_script(world: World) -> None:
    result = world.python(COPY)
    assert (result.returncode, result.stderr) == (0, "")
    assert world.report()["h2d"] == {"transfers": 1, "bytes": 1000, "swaps": 0}


def test_a_module(world: World) -> None:
    world.write("tool/__main__.py", COPY)
    assert world.run(sys.executable, "-m", "tool").returncode == 0
    assert len(world.installed()) == 1


def test_a_console_script(world: World) -> None:
    script = world.write("bin/tool", f"#!{sys.executable}\n{COPY}\n")
    script.chmod(0o755)
    path = f"{script.parent}{os.pathsep}{world.environment['PATH']}"
    assert world.run("tool", environment={"PATH": path}).returncode == 0
    assert len(world.installed()) == 1


def test_an_executable_that_starts_python_somewhere_below(world: World) -> None:
    assert world.run("sh", "-c", f"true; {sys.executable} -c '{COPY}'; true").returncode == 0
    assert len(world.installed()) == 1


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children(world: World, method: str) -> None:  # a short name, for a socket's path
    result = world.python(
        f"""
import multiprocessing

def work():
    import torch
    torch.copy(10)

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    children = [context.Process(target=work) for _ in range(2)]
    for child in children: child.start()
    for child in children: child.join()
"""
    )
    assert result.returncode == 0, result.stderr
    assert world.report()["h2d"]["bytes"] == 20
    assert len({process["pid"] for process in world.report()["processes"]}) == 2


def test_a_child_of_a_process_that_is_already_attached_is_counted_once(world: World) -> None:
    world.python(
        """
import os, torch
torch.copy(1000)
for worker in range(2):
    if os.fork() == 0:
        if worker: torch.copy(10)  # the other one never uses the device
        os._exit(0)
    os.wait()
torch.copy(1)
"""
    )
    report = world.report()
    assert report["h2d"]["bytes"] == 1011
    assert [process["h2d"]["bytes"] for process in report["processes"]] == [1001, 10]


def test_children_whose_python_path_is_made_from_sys_path(world: World) -> None:
    world.python(
        f"""
import os, subprocess, sys
environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
subprocess.run([sys.executable, "-c", {COPY!r}], env=environment, check=True)
"""
    )
    assert world.report()["h2d"]["bytes"] == 1000


def test_the_settings_reach_the_device(world: World) -> None:
    profile = world.write("mine.toml", (PROFILES / "fast.toml").read_text())
    program = world.write("program.py", f"import os; os.chdir('/'); {COPY}")
    options = ["--gpu", "emulated:2", "--profile", "mine.toml", "--policy", "off"]
    assert world.run(sys.executable, program, options=options).returncode == 0
    (installed,) = world.installed()
    assert installed["gpus"] == 2
    assert installed["profile"] == str(profile)
    assert installed["policy"] == "off"


def test_an_interpreter_without_pipellm_is_stopped(world: World) -> None:
    venv.create(world.path / "other", with_pip=False)
    python = world.path / "other" / "bin" / "python"
    # As for a user whose launcher and program live in two environments.
    program = world.write("program.sh", f"PYTHONPATH=${{PYTHONPATH%%:*}}:{world.site} {python} $1")
    use = world.write("use.py", "try:\n    import torch\nexcept BaseException:\n    print('on')")
    result = world.run("sh", program, use)
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("pipellm: the program imports torch under ")
    assert "has no pipellm" in line


def test_an_interpreter_without_pipellm_may_do_all_but_import_torch(world: World) -> None:
    venv.create(world.path / "other", with_pip=False)
    python = world.path / "other" / "bin" / "python"
    program = world.write(
        "program.sh", f"PYTHONPATH=${{PYTHONPATH%%:*}} {python} -c 'print(\"done\")'"
    )
    result = world.run("sh", program)
    assert (result.returncode, result.stdout) == (0, "done\n")


@pytest.mark.parametrize("option", ["-I", "-E", "-S"])
def test_a_bypass_is_told_of(world: World, option: str) -> None:
    result = world.run(sys.executable, option, "-c", "")
    assert result.returncode == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("pipellm: warning: PipeLLM was not used")


@pytest.mark.parametrize(
    ("variable", "given", "seen"),
    [
        ("PIPELLM_CACHE", "/elsewhere", "/elsewhere"),  # not a setting of the run: passed on
        ("OMP_WAIT_POLICY", None, "passive"),
        ("OMP_WAIT_POLICY", "active", "active"),
    ],
)
def test_the_environment_is_the_users_with_defaults_that_suit_the_device(
    world: World, variable: str, given: str | None, seen: str
) -> None:
    world.environment.pop(variable, None)
    source = f"import os; print(os.environ[{variable!r}])"
    environment = {} if given is None else {variable: given}
    result = world.run(sys.executable, "-c", source, environment=environment)
    assert result.stdout.strip() == seen
