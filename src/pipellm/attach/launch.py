"""`pipellm run`: starts a program with PipeLLM under every Python process of it.

To whoever started it, the launcher is the program, though it is only the program's parent: the
same process group and terminal, the same files, the same signals, the same end. What it does itself
comes before and after: check the settings, then merge the statistics that the processes left.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path

from pipellm.attach import cudart, libcrypto
from pipellm.attach.enabling import DIRECTORY_VARIABLE
from pipellm.errors import UserError
from pipellm.gpu.emulated.profile import load
from pipellm.output import Output
from pipellm.runtime import report
from pipellm.settings import OWN_GPU, VARIABLES, Settings

BOOTSTRAP = Path(__file__).absolute().parent / "bootstrap"
"""The folder whose sitecustomize.py attaches PipeLLM to a Python process."""

_REFUSED = "refused"
"""The bootstrap leaves a file of that name where a process has ended itself and has said why."""

_FORWARDED = frozenset(
    {
        *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT),
        *(signal.SIGUSR1, signal.SIGUSR2),
    }
)
_KEYS = frozenset({signal.SIGINT, signal.SIGQUIT})
"""What a terminal sends to the whole foreground process group when Ctrl-C or Ctrl-\\ is pressed."""


def launch(settings: Settings, command: Sequence[str]) -> int:
    """Runs `command` and returns its exit status; dies of the signal that the program died of.

    Raises UserError if the program cannot be started as asked; it has not been, then.
    """
    load(settings.profile)
    if settings.stats is not None:
        report.output(settings.stats).check()
    if settings.trace is not None:
        Output(settings.trace, "the trace").check()
    with _signals_held() as mask, _private_directory() as directory:
        status = _run(command, program_environment(settings, directory, os.environ), mask)
        _conclude(settings, directory, command, status)
    return status if status >= 0 else _die_of(-status)


def program_environment(
    settings: Settings, directory: Path, inherited: Mapping[str, str]
) -> dict[str, str]:
    """The program's environment: as inherited, and the way for PipeLLM to get under it."""
    path = inherited.get("PYTHONPATH", "").split(os.pathsep)
    if path == [""]:
        path = []  # an empty variable is none, an empty entry would be the current directory
    path = [str(BOOTSTRAP), *(entry for entry in path if entry != str(BOOTSTRAP))]
    environment = {
        # The device's operators are OpenMP loops on the CPU. Threads that spin between two of them,
        # as OpenMP's do by default, take the cores from the threads that play the copy engine:
        # on two cores that made FlexGen six times slower.
        "OMP_WAIT_POLICY": "passive",
        **{name: value for name, value in inherited.items() if name not in VARIABLES},
        **settings.to_environment(),
        DIRECTORY_VARIABLE: str(directory),
        "PYTHONPATH": os.pathsep.join(path),
    }
    if "libcrypto" in settings.attachments:
        environment = libcrypto.program_environment(directory, environment)
    if "cudart" in settings.attachments:
        environment = cudart.program_environment(environment)
    return environment


@contextmanager
def _private_directory() -> Iterator[Path]:
    directory = report.make_directory()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _signals_held() -> Iterator[Set[int]]:
    """Holds back the signals to forward, for `_wait` to take them. Yields the mask before that."""
    # Where SIGCHLD is ignored (some supervisors do that), nobody would learn how the program ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED | {signal.SIGCHLD})
    try:
        yield mask
    finally:
        # What came too late for the program is dropped: the launcher ends now, and as it did.
        while signal.sigtimedwait(_FORWARDED, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _run(command: Sequence[str], environment: Mapping[str, str], mask: Set[int]) -> int:
    """The program's exit status; -N if it died of signal N."""

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # SIGKILL cannot be forwarded: whoever kills the launcher means the program.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    try:
        # Files that the program was given beside the standard three (`<(...)` in a shell, a
        # supervisor's sockets) are inheritable, ours are not.
        process = subprocess.Popen(command, env=environment, close_fds=False, preexec_fn=prepare)
    except OSError as error:
        raise _cannot_start(command[0], error) from None
    return _wait(process)


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Forwards signals to the program until it ends."""
    while (status := process.poll()) is None:
        received = signal.sigwaitinfo(_FORWARDED | {signal.SIGCHLD})
        if received.si_signo == signal.SIGCHLD:
            continue
        # A key pressed at the terminal has reached the program already: once is what was meant.
        # (A positive code is the kernel's own; kill() says 0.)
        if received.si_code > 0 and received.si_signo in _KEYS:
            continue
        process.send_signal(received.si_signo)
    return status


def _conclude(settings: Settings, directory: Path, command: Sequence[str], status: int) -> None:
    """Writes the report and the trace, and says so if there was nothing to report on."""
    processes = report.collect(directory)
    if settings.stats is not None:
        ending = (
            {"exit_status": status, "signal": None}
            if status >= 0
            else {"exit_status": None, "signal": _name(-status)}
        )
        merged = report.merge(settings, processes, **ending)
        try:
            report.output(settings.stats).write_json(merged)
        except UserError as error:
            print(f"pipellm: {error}", file=sys.stderr)
    if settings.trace is not None and processes:
        _write_trace(settings, settings.trace, directory, command, processes, status)
    tampered = settings.tamper is None or any(p.counts.get("auth_failures") for p in processes)
    if processes and not tampered:
        print(
            "pipellm: warning: nothing was tampered with: the program ended before "
            f"{settings.tamper}",
            file=sys.stderr,
        )
    if settings.gpu == OWN_GPU:
        return  # a native program has no process that would report
    if not processes and not (directory / _REFUSED).exists():
        print(
            "pipellm: warning: PipeLLM was not used: no process of the program imported torch with "
            "PipeLLM attached (python -I, -E and -S keep it out)",
            file=sys.stderr,
        )


def _write_trace(
    settings: Settings,
    target: Path,
    directory: Path,
    command: Sequence[str],
    processes: Sequence[report.Process],
    status: int,
) -> None:
    from pipellm.trace.file import save
    from pipellm.trace.gather import gather

    recording = gather(directory, settings, command, processes, status if status >= 0 else None)
    if recording is None:
        print(
            "pipellm: warning: no trace was written: the program asked nothing of the device",
            file=sys.stderr,
        )
        return
    try:
        save(target, recording)
    except UserError as error:
        print(f"pipellm: {error}", file=sys.stderr)


def _cannot_start(program: str, error: OSError) -> UserError:
    found = shutil.which(program) or (program if os.path.exists(program) else None)
    if found is None:
        return UserError(f"program not found: {program!r} is neither a file nor on PATH")
    if program.endswith(".py"):
        return UserError(f"cannot run {program}: {error.strerror}; did you mean: python {program}")
    if isinstance(error, FileNotFoundError):
        return UserError(f"cannot run {found}: the interpreter in its first line was not found")
    return UserError(f"cannot run {found}: {error.strerror}")


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name of their own
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


def _die_of(number: int) -> int:
    """Ends this process as the program ended, so that a shell or supervisor sees the same."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # The program has left its core dump, if one was wanted. Some systems pipe core dumps to a
    # program whatever the limit, but never those of a process that is not dumpable.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    _prctl(_PR_SET_DUMPABLE, 0)
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    return 128 + number  # the first process of a container does not die of every signal


_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_libc = ctypes.CDLL(None)


def _prctl(option: int, argument: int) -> None:
    _libc.prctl(option, ctypes.c_ulong(argument), *(ctypes.c_ulong(0),) * 3)
