"""The counters of one process, kept through its crash.

The driver counts in memory that is shared with a file, so that the figures of a process that was
killed are still there. The file is one page of int64 counters, then one line of JSON that says what
process this is and which counters they are:

    [ counter 0 | counter 1 | ... | counter 511 ] { "pid": 1, "counters": ["h2d_transfers", ...] }

`pipellm.runtime.report` makes one report of the files of all processes.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import tempfile
import time
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipellm.errors import UserError

COUNTERS = (
    "h2d_transfers",
    "h2d_bytes",
    "h2d_swaps",
    "d2h_transfers",
    "d2h_bytes",
    "d2h_swaps",
    "auth_failures",
    "paused_ns",
)
"""The counters that every report shows; a driver may have more, and an order of its own.
A policy that plans has those of `pipellm.runtime.speculation` as well."""

SUFFIX = ".statistics"

_PAGE = 4096
_MAP_FIXED = 0x10  # Linux; missing from Python's mmap


class Statistics:
    """The counters of this process, in a file in `directory`, or in memory alone if that is None.

    A forked child goes on in a file of its own, from zero, under the same `counters` buffer.
    `identity` are JSON values for this process's part of the report. Raises UserError if the file
    cannot be made.
    """

    def __init__(self, directory: Path | None, **identity: object) -> None:
        self._directory = directory
        self._path: Path | None = None
        self._identity: dict[str, Any] = {
            "pid": os.getpid(),
            "started": time.monotonic_ns(),
            "forked": False,
            "counters": COUNTERS,
            **identity,
        }
        descriptor = self._create_file()
        if descriptor is None:
            self._memory = mmap.mmap(-1, _PAGE)
        else:
            self._memory = mmap.mmap(descriptor, _PAGE)
            os.close(descriptor)
        self._write_identity()
        _of_this_process.add(self)

    @property
    def directory(self) -> Path | None:
        """Where the files of this process's kind are."""
        return self._directory

    @property
    def counters(self) -> memoryview:
        """The counters, all zero at first: 512 writable int64, those that are named come first.

        The memory stays where it is for as long as any view of it is alive.
        """
        return memoryview(self._memory).cast("q")

    def declare(self, names: Iterable[str]) -> None:
        """Says which counters these are, in order; all of COUNTERS must be among them."""
        declared = tuple(names)
        missing = set(COUNTERS).difference(declared)
        if missing or len(declared) > _PAGE // 8:
            raise ValueError(f"counters {declared} lack {missing}, or are too many")
        self.describe(counters=declared)

    def describe(self, **facts: object) -> None:
        """Adds JSON values to this process's part of the report, such as engine="ipsec-mb"."""
        self._identity.update(facts)
        self._write_identity()

    def discard(self) -> None:
        """Takes this process out of the report: it will not use the device after all."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None

    def _create_file(self) -> int | None:
        if self._directory is None:
            return None
        try:
            prefix = f"{os.getpid()}-"
            descriptor, path = tempfile.mkstemp(SUFFIX, prefix, self._directory)
        except FileNotFoundError:
            # Whoever wanted the figures is gone: this process outlived the run it belongs to.
            return None
        except OSError as error:
            raise self._no_room(error) from None
        self._path = Path(path)
        try:
            # Not a hole: that would be SIGBUS at the first count, if the disk is full by then.
            os.posix_fallocate(descriptor, 0, _PAGE)
        except OSError as error:
            os.close(descriptor)
            self.discard()
            raise self._no_room(error) from None
        return descriptor

    def _no_room(self, error: OSError) -> UserError:
        return UserError(
            f"cannot keep statistics in {self._directory}: {error.strerror}; "
            "free some space there, or set TMPDIR to another directory"
        )

    def _write_identity(self) -> None:
        if self._path is None:
            return
        line = json.dumps(self._identity) + "\n"
        # By path: a descriptor kept open might be closed, and its number reused, by a program that
        # becomes a daemon. In one write, so that a reader finds the old line or the new one. And
        # what cannot be written is not worth the program's life.
        with contextlib.suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(descriptor, line.encode(), _PAGE)
            finally:
                os.close(descriptor)

    def _move_to_own_file(self) -> None:
        """In a forked child: other memory at the same address, which the driver goes on using."""
        self._path = None
        descriptor = None
        with contextlib.suppress(UserError):  # then this child is missing from the report
            descriptor = self._create_file()
        _map_over(self._memory, descriptor)
        if descriptor is not None:
            os.close(descriptor)
        self.describe(pid=os.getpid(), started=time.monotonic_ns(), forked=True)


def read(file: Path) -> tuple[dict[str, Any], dict[str, int]] | None:
    """Identity and counters of one process, or None if it had not come to writing them, or wrote
    something else over them."""
    content = file.read_bytes()
    line, newline, _ = content[_PAGE:].partition(b"\n")
    if not newline:
        return None
    try:
        identity = json.loads(line)
        names = [str(name) for name in identity.pop("counters")]
        for name, kind in (("pid", int), ("started", int), ("forked", bool)):
            if type(identity[name]) is not kind:
                return None
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return None
    return identity, dict(zip(names, memoryview(content[:_PAGE]).cast("q"), strict=False))


_of_this_process: weakref.WeakSet[Statistics] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for statistics in list(_of_this_process):
        statistics._move_to_own_file()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _map_over(memory: mmap.mmap, descriptor: int | None) -> None:
    """Puts the file, or zeros if that is None, where `memory` is, which Python's mmap cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
        ctypes.c_ssize_t,
    )
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    flags = mmap.MAP_SHARED | _MAP_FIXED | (mmap.MAP_ANONYMOUS if descriptor is None else 0)
    where = libc.mmap(
        *(address, _PAGE, mmap.PROT_READ | mmap.PROT_WRITE, flags),
        *(-1 if descriptor is None else descriptor, 0),
    )
    if where != address:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
