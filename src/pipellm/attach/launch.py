"""`pipellm run`: starts a program with PipeLLM under every Python process of it.

To whoever started it, the launcher is the program, though it is only the program's parent: the
same process group and terminal, the same files, the same signals, the same end. What it does itself
comes before and after: check the settings, then merge the statistics that the processes left.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from pathlib import Path

from pipellm.attach import cudart, libcrypto
from pipellm.attach.enabling import DIRECTORY_VARIABLE
from pipellm.attach.prctl import die_with_parent, leave_no_core_dump
from pipellm.attach.summary import summary
from pipellm.attach.witness import Witness
from pipellm.errors import UserError
from pipellm.gpu.emulated.profile import load
from pipellm.output import Output
from pipellm.own_folder import OwnFolder, temporary_folder
from pipellm.runtime import report, served
from pipellm.settings import OWN_GPU, VARIABLES, Settings, log_is_wanted

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


def launch(settings: Settings, command: Sequence[str], *, quiet: bool = False) -> int:
    """Runs `command` and returns its exit status; dies of the signal that the program died of.

    Ends with one line on standard error that says what was copied, unless `quiet`.

    Raises UserError if the program cannot be started as asked; it has not been, then.
    """
    load(settings.profile)
    log_is_wanted(os.environ)
    if settings.stats is not None:
        report.output(settings.stats).check()
    if settings.trace is not None:
        Output(settings.trace, "the trace").check()
    with _signals_held() as mask, _private_directory() as directory:
        started = time.monotonic()
        status = _run(command, program_environment(settings, directory, os.environ), mask)
        _conclude(settings, directory, command, status, time.monotonic() - started, quiet)
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
        environment = libcrypto.program_environment(OwnFolder.of_this_user(), environment)
    if "cudart" in settings.attachments:
        environment = cudart.program_environment(environment)
    return environment


@contextmanager
def _private_directory() -> Iterator[Path]:
    directory = temporary_folder()
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
        die_with_parent()

    try:
        witness = Witness(_FORWARDED)
        # Files that the program was given beside the standard three (`<(...)` in a shell, a
        # supervisor's sockets) are inheritable, ours are not.
        process = subprocess.Popen(command, env=environment, close_fds=False, preexec_fn=prepare)
    except OSError as error:
        raise _cannot_start(command[0], error) from None
    try:
        return _wait(process, witness)
    finally:
        witness.dismiss()


def _wait(process: subprocess.Popen[bytes], witness: Witness) -> int:
    """Forwards signals to the program until it ends."""
    while (status := process.poll()) is None:
        received = signal.sigwaitinfo(_FORWARDED | {signal.SIGCHLD})
        if received.si_signo == signal.SIGCHLD:
            continue
        # A key at the terminal, or a supervisor that signals the group, has reached the program
        # already: once is what was meant.
        if witness.all_got(received.si_signo) and _in_our_group(process):
            while signal.sigtimedwait({received.si_signo}, 0) is not None:
                pass  # sent to us as well (timeout does both)
            continue
        process.send_signal(received.si_signo)
    return status


def _in_our_group(process: subprocess.Popen[bytes]) -> bool:
    try:
        return os.getpgid(process.pid) == os.getpgrp()
    except ProcessLookupError:
        return False


def _conclude(
    settings: Settings,
    directory: Path,
    command: Sequence[str],
    status: int,
    elapsed_s: float,
    quiet: bool,
) -> None:
    """Writes the report and the trace, and says what became of the program's copies."""
    processes = report.collect(directory)
    providers = served.collect(directory)
    ending = (
        {"exit_status": status, "signal": None}
        if status >= 0
        else {"exit_status": None, "signal": _name(-status)}
    )
    merged = report.merge(settings, processes, providers, elapsed_s=elapsed_s, **ending)
    if settings.stats is not None:
        try:
            report.output(settings.stats).write_json(merged)
        except UserError as error:
            _tell(str(error))
    if settings.trace is not None and processes:
        _write_trace(settings, settings.trace, directory, command, processes, status)
    tampered = settings.tamper is None or any(p.counts.get("auth_failures") for p in processes)
    if processes and not tampered:
        _tell(
            f"warning: nothing was tampered with: the program ended before {settings.tamper}",
        )
    for warning in _unused(settings, processes, providers, (directory / _REFUSED).exists()):
        _tell(f"warning: {warning}")
    if not quiet and (line := summary(merged)) is not None:
        _tell(line)


def _unused(
    settings: Settings,
    processes: Sequence[report.Process],
    providers: Sequence[served.Served],
    refused: bool,
) -> Iterator[str]:
    """What of that which was asked for was not used, in words."""
    if "libcrypto" in settings.attachments and not providers and not refused:
        yield (
            "nothing was attached to libcrypto: no process of the program loaded OpenSSL 3 with "
            "its configuration"
        )
    # A native program on its own GPU has no process that would report.
    if settings.gpu != OWN_GPU and not processes and not refused:
        yield (
            "PipeLLM was not used: no process of the program imported torch with PipeLLM attached "
            "(python -I, -E and -S keep it out)"
        )


def _tell(message: str) -> None:
    # Unbuffered: what is left in a buffer because standard error is full or closed would change the
    # exit status, which is the program's.
    with suppress(OSError):
        os.write(2, f"pipellm: {message}\n".encode(errors="backslashreplace"))


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
        _tell("warning: no trace was written: the program asked nothing of the device")
        return
    try:
        save(target, recording)
    except UserError as error:
        _tell(str(error))


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
    # The program has left its core dump, if one was wanted.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    leave_no_core_dump()
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    return 128 + number  # the first process of a container does not die of every signal
