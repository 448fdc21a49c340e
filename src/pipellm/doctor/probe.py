"""Reads the machine at hand. Nothing here judges, and nothing is changed."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pipellm import _native
from pipellm.doctor import copying, gpu, sealing, software
from pipellm.doctor.machine import Kernel, Machine, Memory, Processor

_SECONDS = 0.05
"""How long memory is measured."""


def read() -> Machine:
    """All of it, in a second or two; with a confidential GPU, as long as CUDA takes to start."""
    gpus = gpu.read()
    return Machine(
        gpus=gpus,
        processor=processor(),
        memory=memory(_native.measure_memcpy(_SECONDS) / 1e9),
        kernel=kernel(_native.WriteTracker().works),
        sealing=sealing.read(),
        software=software.read(),
        copying=copying.run() if gpus.confidential and gpus.ready is not False else None,
    )


def processor(root: Path = Path("/")) -> Processor:
    info = (root / "proc/cpuinfo").read_text()
    flags = _line(info, "flags|Features") or ""
    model = _line(info, "model name") or "unknown CPU"
    return Processor(model, frozenset(flags.split()), len(os.sched_getaffinity(0)))


def memory(copy_gbps: float, root: Path = Path("/")) -> Memory:
    total = _line((root / "proc/meminfo").read_text(), "MemTotal") or "0 kB"
    enabled = root / "sys/kernel/mm/transparent_hugepage/enabled"
    policy = re.search(r"\[(\w+)\]", enabled.read_text()) if enabled.exists() else None
    kibibytes = int(total.split()[0])
    return Memory(kibibytes << 10, copy_gbps, policy[1] if policy else None)


def kernel(tracks_writes: bool, root: Path = Path("/")) -> Kernel:
    return Kernel(os.uname().release, tracks_writes, _guest(root))


def _guest(root: Path) -> str | None:
    info = (root / "proc/cpuinfo").read_text()
    flags = (_line(info, "flags") or "").split()
    devices = root / "dev"
    tdx = ("tdx_guest", "tdx-guest", "tdx-attest")
    if "tdx_guest" in flags or any((devices / name).exists() for name in tdx):
        return "Intel TDX"
    if (devices / "sev-guest").exists():
        return "AMD SEV-SNP"
    return None


def _line(text: str, name: str) -> str | None:
    """What follows `name` and a colon in the first line that has it."""
    found = re.search(rf"^(?:{name})\s*:\s*(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else None
