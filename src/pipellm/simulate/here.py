"""This host, measured."""

from __future__ import annotations

import ctypes
import mmap
import os
import time

from pipellm import _native
from pipellm.bench.cases import CASES
from pipellm.bench.measure import host_gbps
from pipellm.channel import engines
from pipellm.plan import PAPER
from pipellm.simulate import thinking
from pipellm.simulate.host import Host
from pipellm.transfers import CHUNK

_SECONDS = 0.2
_SEALING_CROSSES = 2  # the memory bus, for each byte: read, and written
_SCANNED = 16 * CHUNK
_SCANS = 20


def measured() -> Host:
    """What this process has, and how fast it is; takes about three seconds."""
    cores = len(os.sched_getaffinity(0))
    together = _native.measure_seal(engines.measured().fastest, _SECONDS, cores) / 1e9
    return Host(
        cores=cores,
        **host_gbps(_SECONDS),
        memory=_SEALING_CROSSES * together,
        scan=_scan_rate(),
        decision=thinking.microseconds(CASES["flexgen-opt-30b"].make(), PAPER),
    )


def _scan_rate() -> float:
    """How many GB a second are shown to be unchanged."""
    tracker = _native.WriteTracker()
    with mmap.mmap(-1, _SCANNED, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(b"\x01" * _SCANNED)
        address = _address(memory)
        watch = tracker.watch(address, _SCANNED)
        if watch is None:
            return 1.0  # nothing is sealed ahead here, so nothing is ever looked at
        start = time.perf_counter()
        for _ in range(_SCANS):
            tracker.unchanged(watch)
        seconds = time.perf_counter() - start
        del watch
    return _SCANS * _SCANNED / seconds / 1e9


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
