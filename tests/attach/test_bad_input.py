"""What a user gets wrong is told in one line, with status 2, before anything has happened."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pipellm.runtime.policy import CHOICES
from tests.attach.conftest import World

PROGRAM = [sys.executable, "-c", "open('ran', 'w')"]


def refused(world: World, *arguments: str, shell_prefix: str = "") -> str:
    """The one line that `pipellm ARGUMENTS` prints before it ends with status 2."""
    before = world.files()
    command = [sys.executable, "-m", "pipellm", *arguments]
    if shell_prefix:
        command = ["bash", "-c", shell_prefix + ' exec "$@"', "bash", *command]
    result = subprocess.run(
        command,
        cwd=world.path,
        env=world.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert world.files() == before
    return line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "the following arguments are required: COMMAND (see `pipellm --help`)"),
        (["run"], "no program given; try: pipellm run -- python your_program.py"),
        (["run", "--"], "no program given; try: pipellm run -- python your_program.py"),
        (
            ["run", "--gpu", "emulatd", "--", *PROGRAM],
            "unknown gpu 'emulatd' (choose from emulated, own); did you mean 'emulated'?",
        ),
        (
            ["run", "--gpu", "own", "--", *PROGRAM],
            "gpu own without --attach libcrypto: PipeLLM would do nothing",
        ),
        (
            ["run", "--tamper", "up:3", "--", *PROGRAM],
            "tamper 'up:3': expected a direction and the number of a message, as in h2d:100 or "
            "d2h:1",
        ),
        (
            ["run", "--policy", "off", "--tamper", "h2d:3", "--", *PROGRAM],
            "--tamper with policy off: nothing is sealed, so nobody would notice; take another "
            "policy",
        ),
        (
            ["run", "--gpu", "own", "--attach", "libcrypto", "--tamper", "h2d:3", "--", *PROGRAM],
            "--tamper with gpu own: only an emulated GPU's messages can be changed",
        ),
        (
            ["run", "--gpu", "emulated:two", "--", *PROGRAM],
            "gpu 'emulated:two': expected a number after the colon, as in emulated:2",
        ),
        (
            ["run", "--gpu", "emulated:0", "--", *PROGRAM],
            "0 gpus asked for; 1 to 16 can be had",
        ),
        (
            ["run", "--profile", "h100nvl", "--", *PROGRAM],
            "unknown profile 'h100nvl' (choose from b300, fast, h100, h100-nvl, FILE.toml); "
            "did you mean 'h100-nvl'?",
        ),
        (["run", "--profile", "my.toml", "--", *PROGRAM], "profile my.toml: no such file"),
        (
            ["run", "--policy", "cereal", "--", *PROGRAM],
            f"unknown policy 'cereal' (choose from {', '.join(CHOICES)}); did you mean 'serial'?",
        ),
        (
            ["run", "--", "no-such-program"],
            "program not found: 'no-such-program' is neither a file nor on PATH",
        ),
        (["run", "--", "./"], "cannot run ./: Permission denied"),
        (["run", "--", "/dev/null"], "cannot run /dev/null: Permission denied"),
        (
            ["run", "--stats", "no/such/folder.json", "--", *PROGRAM],
            "cannot write statistics to no/such/folder.json: No such file or directory",
        ),
        (
            ["run", "--stats", ".", "--", *PROGRAM],
            "cannot write statistics to .: not a regular file",
        ),
        (
            ["run", "--stats", "/dev/null", "--", *PROGRAM],
            "cannot write statistics to /dev/null: not a regular file",
        ),
    ],
)
def test_what_is_wrong_with_the_command_line(world: World, arguments: list[str], line: str) -> None:
    told = refused(world, *arguments)
    assert told.replace(f"{world.path}/", "").replace(str(world.path), ".") == f"pipellm: {line}"


def test_a_misspelt_option(world: World) -> None:
    line = refused(world, "run", "--polcy", "off", "--", *PROGRAM)
    assert line == "pipellm: unrecognized arguments: --polcy (see `pipellm --help`)"


def test_a_script_that_is_not_executable(world: World) -> None:
    world.write("program.py", "")
    line = refused(world, "run", "--", "./program.py")
    assert line.endswith("Permission denied; did you mean: python ./program.py")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("#!/no/such/python\n", "the interpreter in its first line was not found"),
        ("\x00", "Exec format error"),
    ],
)
def test_a_program_that_cannot_be_executed(world: World, content: str, why: str) -> None:
    world.write("program", content).chmod(0o755)
    assert refused(world, "run", "--", "./program") == f"pipellm: cannot run ./program: {why}"


def test_a_profile_with_a_fault(world: World) -> None:
    world.write("mine.toml", "name = 'mine'\nmemory_gib = 'much'\n")
    line = refused(world, "run", "--profile", "mine.toml", "--", *PROGRAM)
    assert line == ("pipellm: profile mine.toml: memory_gib: expected a number above 0, not 'much'")


def test_no_room_for_temporary_files(world: World) -> None:
    world.environment["TMPDIR"] = str(world.path / "none")
    line = refused(
        world,
        *("run", "--", *PROGRAM),
        # No file may grow, so no place passes for a temporary directory.
        shell_prefix="ulimit -f 0; cd /proc;",
    )
    assert line.startswith("pipellm: no room for temporary files: ")


def test_a_folder_for_temporary_files_that_others_may_write_to(world: World) -> None:
    folder = world.path / "tmp" / f"pipellm-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    line = refused(world, "run", "--", *PROGRAM)
    assert line.startswith(f"pipellm: others may write to {folder}: ")


def test_no_room_for_the_counters_of_a_process(world: World) -> None:
    program = f"ulimit -f 0; {sys.executable} -B -c 'import torch; print(1)'"
    result = world.run("bash", "-c", program)
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("pipellm: cannot keep statistics in ")
    assert "File too large" in line


def test_the_version_and_the_help(world: World) -> None:
    for arguments, expected in (("--version", "pipellm 0.1.0"), ("run --help", "examples:")):
        result = subprocess.run(
            [sys.executable, "-m", "pipellm", *arguments.split()],
            env=world.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 0
        assert expected in result.stdout


def test_a_program_may_be_given_without_the_dashes(world: World) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pipellm", "run", "--policy", "off", "echo", "--policy", "--", "x"],
        env=world.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout == "--policy -- x\n"
