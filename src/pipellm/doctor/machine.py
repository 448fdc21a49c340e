"""What is known of a machine: read by `probe`, judged by `checks`, made up by tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpus:
    """What NVML says."""

    driver: str | None = None
    """The NVIDIA driver's version; None where there is no driver."""
    problem: str | None = None
    """Why a driver that is there could not be asked."""
    names: tuple[str, ...] = ()
    confidential: bool | None = None
    """Whether confidential computing is on; None where the driver does not say."""
    devtools: bool = False
    """Confidential computing for developers: everything works, nothing is protected."""
    ready: bool | None = None
    """Whether the GPUs take work; under confidential computing somebody has to say so first."""


@dataclass(frozen=True, slots=True)
class Processor:
    model: str
    flags: frozenset[str]
    """As in /proc/cpuinfo."""
    cores: int
    """That this process may use."""


@dataclass(frozen=True, slots=True)
class Memory:
    total_bytes: int
    copy_gbps: float
    """What one thread copies, in 10^9 bytes per second, over blocks that do not fit the cache."""
    huge_pages: str | None
    """The kernel's policy for transparent huge pages: `always`, `madvise` or `never`."""


@dataclass(frozen=True, slots=True)
class Kernel:
    release: str
    tracks_writes: bool
    """Found out by trying (native/memory/write_tracker.h)."""
    guest: str | None = None
    """`Intel TDX` or `AMD SEV-SNP` where this is such a guest and shows it."""


@dataclass(frozen=True, slots=True)
class Sealing:
    """Who could seal here, and how fast one core is at it."""

    libcrypto: str | None
    """The version of the libcrypto.so.3 that a driver would open, if there is one."""
    engines_gbps: Mapping[str, float]
    """By engine of the native core, in 10^9 bytes per second, over messages of 1 MiB."""
    provider_problem: str | None = None
    """Why a program would not be served by the OpenSSL provider."""


@dataclass(frozen=True, slots=True)
class Software:
    torch: str | None = None
    """The installed version."""
    torch_cuda: str | None = None
    """The version of CUDA that this torch was built for; None for a CPU-only build."""
    vllm: str | None = None
    compiler: str | None = None
    """The C++ compiler that would build the emulated device's backend."""


@dataclass(frozen=True, slots=True)
class Copying:
    """What became of one copy to the GPU and back, the provider being attached."""

    problem: str | None = None
    """What CUDA said, if it did not work."""
    nbytes: int = 0
    """Bytes copied, both ways together."""
    served_bytes: int = 0
    """Bytes that the driver had the provider seal or open meanwhile."""
    host_register: int | None = None
    """What registering host memory returned, a CUresult; 801 is `not supported`."""


@dataclass(frozen=True, slots=True)
class Machine:
    gpus: Gpus
    processor: Processor
    memory: Memory
    kernel: Kernel
    sealing: Sealing
    software: Software
    copying: Copying | None = None
    """None where it was not tried: without a confidential GPU there is nothing to see."""
