"""The part of the CUDA runtime that PyTorch hands to programs as `torch.cuda.cudart()`."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import torch
from torch.cuda._utils import _get_device_index

if TYPE_CHECKING:
    from torch.types import Device


class Status(IntEnum):
    """cudaError_t: the statuses that the driver gives."""

    success = 0
    invalidValue = 1  # noqa: N815
    memoryAllocation = 2  # noqa: N815
    invalidDevice = 101  # noqa: N815
    invalidResourceHandle = 400  # noqa: N815
    notReady = 600  # noqa: N815
    launchFailure = 719  # noqa: N815
    notSupported = 801  # noqa: N815


_WORDS = {
    Status.success: "no error",
    Status.invalidValue: "invalid argument",
    Status.memoryAllocation: "out of memory",
    Status.invalidDevice: "invalid device ordinal",
    Status.invalidResourceHandle: "invalid resource handle",
    Status.notReady: "device not ready",
    Status.launchFailure: "unspecified launch failure",
    Status.notSupported: "operation not supported",
}


class Cudart:
    """Stands for the module `torch._C._cudart`."""

    cudaError = Status  # noqa: N815

    def cudaGetErrorString(self, error: Status) -> str:  # noqa: N802
        return _WORDS[error]

    def cudaMemGetInfo(self, device: Device = None) -> tuple[int, int]:  # noqa: N802
        """(free, total) bytes of `device`, by default the current one."""
        index = _get_device_index(device, optional=True)
        free, total = torch.ops.pipellm.free_and_total(index)
        return free, total

    def cudaHostRegister(self, pointer: int, nbytes: int, flags: int) -> Status:  # noqa: N802
        """Pins host memory. Under confidential computing: `notSupported` (801)."""
        return Status(torch.ops.pipellm.host_register(pointer, nbytes))

    def cudaHostUnregister(self, pointer: int) -> Status:  # noqa: N802
        return Status(torch.ops.pipellm.host_unregister(pointer))

    def cudaProfilerStart(self) -> Status:  # noqa: N802
        return Status.success

    def cudaProfilerStop(self) -> Status:  # noqa: N802
        return Status.success
