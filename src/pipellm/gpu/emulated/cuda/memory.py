"""Device memory as `torch.cuda` reports it. Nothing is cached: reserved is allocated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch.types import Device


def device_memory_used(device: Device = None) -> int:
    """Bytes, as NVML knows them on a real GPU: what is not free."""
    free, total = torch.cuda.mem_get_info(device)
    return total - free


def raw_alloc(nbytes: int, stream: int) -> int:
    """Allocates on the current device; the tensor that owns the bytes is kept until raw_delete."""
    owner = torch.empty(nbytes, dtype=torch.uint8, device="cuda")
    _raw_allocations[owner.data_ptr()] = owner
    return owner.data_ptr()


def raw_delete(pointer: int) -> None:
    del _raw_allocations[pointer]


_raw_allocations: dict[int, torch.Tensor] = {}


def bindings() -> Mapping[str, Callable[..., object]]:
    return {
        "_cuda_emptyCache": lambda: None,
        "_host_emptyCache": lambda: None,
        "_cuda_memoryStats": torch._C._accelerator_getDeviceStats,
        "_cuda_resetAccumulatedMemoryStats": torch._C._accelerator_resetAccumulatedStats,
        "_cuda_resetPeakMemoryStats": torch._C._accelerator_resetPeakStats,
        "_cuda_hostMemoryStats": dict,
        "_cuda_resetAccumulatedHostMemoryStats": lambda: None,
        "_cuda_resetPeakHostMemoryStats": lambda: None,
        "_cuda_getAllocatorBackend": lambda: "native",
        "_cuda_cudaCachingAllocator_is_enabled": lambda: False,
        "_cuda_cudaCachingAllocator_enable": lambda enable: None,
        "_cuda_cudaCachingAllocator_raw_alloc": raw_alloc,
        "_cuda_cudaCachingAllocator_raw_delete": raw_delete,
        "_cuda_setMemoryFraction": torch.ops.pipellm.set_memory_fraction,
        "_cuda_getMemoryFraction": torch.ops.pipellm.memory_fraction,
    }
