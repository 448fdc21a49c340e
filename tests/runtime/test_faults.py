"""Sealing ahead leaves the program's signals alone: a crash is what it is without PipeLLM."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, faulthandler, os, signal, sys
from tests.runtime.planned import MIB, PlannedGpu

def handled():
    # Whether anybody handles either; the C library has handlers of its own for other signals.
    caught = open("/proc/self/status").read().split("SigCgt:")[1].split()[0]
    return [int(caught, 16) >> (number - 1) & 1 for number in (signal.SIGSEGV, signal.SIGBUS)]

def seal_ahead():
    gpu = PlannedGpu()
    buffers = [gpu.host_alloc(MIB) for _ in range(4)]
    for _ in range(4):
        for buffer in buffers:
            gpu.load(buffer, MIB)
        gpu.settle()
    assert gpu.counted["sealed_ahead_bytes"]
    return gpu

def crash():
    if sys.argv[2] == "SIGSEGV":
        ctypes.string_at(8)
    with open(sys.argv[3], "w+b") as file:
        file.truncate(4096)
        import mmap
        page = mmap.mmap(file.fileno(), 4096)
        file.truncate(0)
        page[0]

def handle():
    # A program's own, in C: it says a word and dies of the signal by default.
    ctypes.CDLL(None).signal(int(getattr(signal, sys.argv[2])), HANDLER)

HANDLER_TYPE = ctypes.CFUNCTYPE(None, ctypes.c_int)

@HANDLER_TYPE
def HANDLER(number):
    os.write(2, b"handled")
    ctypes.CDLL(None).signal(number, None)

order = sys.argv[1]
if order == "faulthandler, then sealing":
    faulthandler.enable()
    before = handled()
    gpu = seal_ahead()
    assert handled() == before
elif order == "sealing, then faulthandler, then sealing":
    gpu = seal_ahead()
    faulthandler.enable()
    seal_ahead()
elif order == "handler, then sealing":
    handle()
    gpu = seal_ahead()
elif order == "sealing, then handler, then sealing":
    gpu = seal_ahead()
    handle()
    seal_ahead()
else:
    before = handled()
    gpu = seal_ahead()
    assert handled() == before
crash()
"""


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGBUS"])
@pytest.mark.parametrize(
    ("order", "said"),
    [
        ("sealing", ""),
        ("faulthandler, then sealing", "Fatal Python error"),
        ("sealing, then faulthandler, then sealing", "Fatal Python error"),
        ("handler, then sealing", "handled"),
        ("sealing, then handler, then sealing", "handled"),
    ],
)
def test_a_crash_dies_of_its_signal_and_is_told_once(
    name: str, order: str, said: str, tmp_path: object
) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, order, name, f"{tmp_path}/file"],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
    )
    assert result.returncode == -getattr(signal, name), result.stderr[-2000:]
    assert result.stderr.count(said or "Traceback") == (1 if said else 0)
