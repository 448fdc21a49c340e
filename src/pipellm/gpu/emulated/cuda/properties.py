"""What a program is told about a device (`torch.cuda.get_device_properties`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceProperties:
    """The fields of torch's `_CudaDeviceProperties`, under its names.

    The defaults that no profile speaks of are a Hopper's (CUDA C++ Programming Guide, compute
    capability 9.0; L2 and bus width from the H100 data sheet).
    """

    name: str
    major: int
    minor: int
    total_memory: int
    """Bytes."""
    multi_processor_count: int
    clock_rate: int
    """Kilohertz, as `cudaDeviceProp.clockRate`: what a cycle of `torch.cuda._sleep` lasts."""
    uuid: UUID = field(default_factory=lambda: UUID(int=0))
    warp_size: int = 32
    max_threads_per_block: int = 1024
    max_threads_per_multi_processor: int = 2048
    regs_per_multiprocessor: int = 65536
    shared_memory_per_block: int = 48 * 1024
    shared_memory_per_block_optin: int = 227 * 1024
    shared_memory_per_multiprocessor: int = 228 * 1024
    L2_cache_size: int = 50 * 1024 * 1024
    memory_bus_width: int = 5120
    is_integrated: int = 0
    is_multi_gpu_board: int = 0
    gcnArchName: str = ""  # noqa: N815 (torch's name; empty on CUDA devices)
