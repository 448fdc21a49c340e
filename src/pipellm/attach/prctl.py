"""What Linux lets a process say about itself, and Python has no name for."""

from __future__ import annotations

import ctypes
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_libc = ctypes.CDLL(None)


def die_with_parent() -> None:
    """Has the kernel kill this process when the thread that forked it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def leave_no_core_dump() -> None:
    """Some systems pipe core dumps to a program whatever the limit, but not those of a process that
    is not dumpable."""
    _prctl(_PR_SET_DUMPABLE, 0)


def _prctl(option: int, argument: int) -> None:
    _libc.prctl(option, ctypes.c_ulong(argument), *(ctypes.c_ulong(0),) * 3)
