"""Signals sent to the launcher are the program's."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pytest

from tests.attach.conftest import World

# Counts what it gets, and ends with what it counted when it gets SIGTERM.
COUNTER = """
import os, signal, sys
counts = dict.fromkeys(("SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"), 0)

def count(number, frame):
    counts[signal.Signals(number).name] += 1
    os.write(1, f"got {signal.Signals(number).name}\\n".encode())

def end(number, frame):
    os.write(1, f"{counts}\\n".encode())
    sys.exit(7)

for name in counts:
    signal.signal(getattr(signal, name), count)
signal.signal(signal.SIGTERM, end)
import torch
os.write(1, b"ready\\n")  # not print: a handler may come in between
while True:
    signal.pause()
"""


def start(world: World, source: str = COUNTER) -> subprocess.Popen[str]:
    """A program under a launcher that leads a process group, as a shell with job control has it."""
    program = world.write("program.py", source)
    process = subprocess.Popen(
        world.pipellm_run([sys.executable, program], "--stats", str(world.stats)),
        env=world.environment,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"])
def test_a_signal_is_forwarded_once(world: World, name: str) -> None:
    process = start(world)
    assert process.stdout is not None
    process.send_signal(getattr(signal, name))
    assert process.stdout.readline() == f"got {name}\n"
    process.terminate()
    assert f"'{name}': 1" in process.stdout.read()
    assert process.wait() == 7


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"])
def test_a_signal_to_the_process_group_arrives_once(world: World, name: str) -> None:
    process = start(world)
    assert process.stdout is not None
    for _ in range(3):
        # Whoever forwards it does so when the program has dealt with it: two would not be one.
        process.send_signal(signal.SIGSTOP)
        os.killpg(process.pid, getattr(signal, name))
        assert process.stdout.readline() == f"got {name}\n"
        process.send_signal(signal.SIGCONT)
    # The launcher takes this after the others: what it forwarded of them has come before.
    process.terminate()
    assert f"'{name}': 3" in process.stdout.read()
    assert process.wait() == 7


def test_signals_to_the_group_and_to_the_launcher_are_told_apart(world: World) -> None:
    process = start(world)
    assert process.stdout is not None
    for _ in range(3):
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "got SIGINT\n"
        process.send_signal(signal.SIGUSR1)  # which the launcher takes after SIGINT
        assert process.stdout.readline() == "got SIGUSR1\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "got SIGINT\n"
    process.terminate()
    last = process.stdout.read()
    assert "'SIGINT': 6" in last
    assert "'SIGUSR1': 3" in last


def test_a_program_in_a_group_of_its_own_gets_what_its_launchers_group_gets(world: World) -> None:
    process = start(world, "import os; os.setpgid(0, 0)\n" + COUNTER)
    assert process.stdout is not None
    os.killpg(process.pid, signal.SIGINT)
    assert process.stdout.readline() == "got SIGINT\n"
    process.terminate()
    assert "'SIGINT': 1" in process.stdout.read()


@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP])
def test_signals_are_forwarded_whatever_becomes_of_the_witness(
    world: World, harm: signal.Signals
) -> None:
    process = start(world)
    assert process.stdout is not None
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (witness,) = (
        int(child)
        for child in children
        if b"program.py" not in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[1]
    )
    os.kill(witness, harm)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "got SIGINT\n"
    process.terminate()
    assert "'SIGINT': 1" in process.stdout.read()
    assert process.wait() == 7


def test_a_program_that_does_not_handle_sigterm_dies_of_it(world: World) -> None:
    process = start(world, "import torch, signal; print('ready', flush=True); signal.pause()")
    process.terminate()
    assert process.wait() == -signal.SIGTERM
    assert world.report()["signal"] == "SIGTERM"


def test_the_program_dies_with_a_launcher_that_is_killed(world: World) -> None:
    process = start(world)
    assert process.stdout is not None
    process.kill()
    # The end of the pipe comes only when the program, too, has let go of it.
    assert process.stdout.read() == ""


def test_control_c_at_the_terminal_interrupts_once(world: World) -> None:
    program = world.write("program.py", COUNTER)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        world.pipellm_run([sys.executable, program]),
        env=world.environment,
        stdin=theirs,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: ioctl(theirs, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.write(ours, b"\x03")
    assert process.stdout.readline() == "got SIGINT\n"
    # The launcher takes its signals in order: had it forwarded a SIGINT, that would come first.
    process.terminate()
    assert "'SIGINT': 1" in process.stdout.read()
    assert process.wait() == 7
    os.close(ours)


def test_what_nohup_ignores_stays_ignored(world: World) -> None:
    source = "import signal; print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"
    command = world.pipellm_run([sys.executable, "-c", source])
    result = subprocess.run(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command],
        env=world.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout == "True\n"


def test_the_program_starts_with_the_signals_of_any_program(world: World) -> None:
    source = (
        "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []), "
        "signal.getsignal(signal.SIGINT) is signal.default_int_handler, "
        "signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGCHLD))"
    )
    alone = subprocess.run(
        [sys.executable, "-c", source], env=world.environment, capture_output=True, text=True
    )
    assert world.run(sys.executable, "-c", source).stdout == alone.stdout
