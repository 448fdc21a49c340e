"""Enabling PipeLLM in this process: for a program that asks, or for one that was launched so."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from pipellm.attach import cudart, libcrypto
from pipellm.errors import UserError
from pipellm.gpu.emulated.profile import load
from pipellm.own_folder import temporary_folder
from pipellm.runtime import report
from pipellm.runtime.served import Served
from pipellm.runtime.statistics import Statistics
from pipellm.settings import DEFAULT_GPU, DEFAULT_POLICY, DEFAULT_PROFILE, OWN_GPU, Settings

DIRECTORY_VARIABLE = "PIPELLM_STATS_DIR"
"""Names the folder in which the launcher collects the statistics of all processes."""

_lock = threading.RLock()  # a signal handler may call `enable` while its own thread attaches
_current: Settings | None = None
# Kept, because a forked child moves the statistics that are there to a file of its own.
_statistics: Statistics | None = None


def enable(
    gpu: str = DEFAULT_GPU,
    profile: str = DEFAULT_PROFILE,
    policy: str = DEFAULT_POLICY,
    stats: str | Path | None = None,
    attach: str | None = None,
) -> None:
    """Puts PipeLLM under this process. Call it before CUDA is first used; it imports torch.

    `gpu` is `emulated`, or `emulated:N` for N of them, or `own`: the GPU that is there; `profile`
    a name (`h100`, ...) or a TOML file; `policy` as for `pipellm run`. With
    `attach="libcrypto"`, libcrypto.so.3, and so NVIDIA's driver, seals through PipeLLM (`cudart`
    can be attached by `pipellm run` only). `stats` names a JSON file that is written when the
    process ends of its own accord (`pipellm run --stats` writes it after a crash as well).

    A second call with the same settings does nothing; nor does one in a signal handler that has
    interrupted the first, which goes on when the handler returns. Raises UserError for other
    settings than the process already has (from `pipellm run`, too), and for all that the user can
    put right.
    """
    asked = Settings.parse(gpu, profile, policy, stats, attach)
    launched = Settings.from_environment(os.environ)
    if launched is not None and _current is None:
        _require_agreement(asked, launched)
        asked = launched
    # Attaches, if this process was launched so. Not under the lock: another thread that imports
    # torch holds torch's import lock when it attaches, and then wants ours.
    import torch  # noqa: F401

    _require_agreement(asked, _attach_once(asked))


def enable_from_environment() -> None:
    """Does what the launcher said, if there was one and it is not done yet. Raises UserError."""
    settings = Settings.from_environment(os.environ)
    if settings is not None:
        _attach_once(settings)


def _require_agreement(asked: Settings, current: Settings) -> None:
    if not asked.agrees_with(current):
        raise UserError(f"PipeLLM already runs here with other settings ({current})")


def _attach_once(settings: Settings) -> Settings:
    """Attaches, unless that is done, or being done by the code that a signal handler interrupted.

    Returns the settings of this process. They are set first, for such a handler to find them: with
    no call between the question and the answer, there is no place for it to come in.
    """
    global _current
    with _lock:
        if _current is None:
            _current = settings
            try:
                _attach(settings)
            except BaseException:
                _current = None
                raise
        return _current


def _attach(settings: Settings) -> None:
    global _statistics
    load(settings.profile)  # complains before anything is made
    launcher = os.environ.get(DIRECTORY_VARIABLE)
    directory = Path(launcher) if launcher else None
    with ExitStack() as undo:
        if directory is None and settings.stats is not None:
            report.output(settings.stats).check()
            directory = temporary_folder()
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
            # Before the device is there, so that it runs after whatever the device does at exit.
            started = time.monotonic()
            atexit.register(_report_at_exit, settings, directory, os.getpid(), started)
            undo.callback(atexit.unregister, _report_at_exit)
        statistics = Statistics(
            directory,
            argv=sys.orig_argv,
            devices=settings.gpus,
            policy=settings.policy,
            profile=settings.profile,
        )
        undo.callback(statistics.discard)
        if "cudart" in settings.attachments:
            cudart.require()
        if "libcrypto" in settings.attachments:
            undo.callback(libcrypto.attach_libcrypto().undo)
        if settings.gpu != OWN_GPU:
            from pipellm.gpu import emulated

            emulated.install(settings, statistics)
        _statistics = statistics
        undo.pop_all()


def _report_at_exit(settings: Settings, directory: Path, pid: int, started: float) -> None:
    if os.getpid() != pid or settings.stats is None:
        return  # a forked child: its figures are in the directory
    try:
        served = []
        if "libcrypto" in settings.attachments:
            here = libcrypto.served()
            served.append(Served(pid, here.updates, here.nbytes))
        elapsed = {"elapsed_s": time.monotonic() - started}
        merged = report.merge(settings, report.collect(directory), served, **elapsed)
        report.output(settings.stats).write_json(merged)
    except UserError as error:
        print(f"pipellm: {error}", file=sys.stderr)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
