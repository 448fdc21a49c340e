"""Devices: how many, which is current, and what they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.cuda._utils import _get_device_index

from pipellm.gpu.emulated.cuda.properties import DeviceProperties

if TYPE_CHECKING:
    from torch.types import Device


@dataclass(frozen=True, slots=True)
class Devices:
    """`torch.cuda`'s view of the devices of one installed driver."""

    properties: Sequence[DeviceProperties]

    def bindings(self) -> Mapping[str, Callable[..., object]]:
        return {
            "_cuda_init": self.initialize,
            "_cuda_isInBadFork": torch.ops.pipellm.in_bad_fork,
            "_cuda_hasPrimaryContext": lambda device: not torch.ops.pipellm.in_bad_fork(),
            "_cuda_getDeviceCount": torch.ops.pipellm.device_count,
            "_cuda_getDevice": torch._C._accelerator_getDeviceIndex,
            "_cuda_setDevice": torch._C._accelerator_setDeviceIndex,
            "_cuda_exchangeDevice": exchange_device,
            "_cuda_maybeExchangeDevice": exchange_device,
            "_cuda_canDeviceAccessPeer": lambda device, peer: device != peer,
            "_cuda_synchronize": synchronize,
            "_cuda_sleep": self.sleep,
            "_cuda_getArchFlags": lambda: None,
            "_cuda_getCompiledVersion": lambda: 0,
            "_cuda_ipc_collect": lambda: None,
            "_cuda_clearCublasWorkspaces": lambda: None,
            "_CudaDeviceProperties": DeviceProperties,
        }

    def initialize(self) -> None:
        """What the first use of `torch.cuda` does. Raises torch's errors in a forked child, and
        where no device is visible."""
        torch.ops.pipellm.touch_devices()
        torch.cuda.default_generators = tuple(
            torch.ops.pipellm.default_generator(device)
            for device in range(torch.ops.pipellm.device_count())
        )
        vars(torch.cuda)["_get_device_properties"] = self.properties.__getitem__

    def clock_rate(self, device: Device = None) -> int:
        """Megahertz of the multiprocessors, which NVML tells on a real GPU."""
        index = _get_device_index(device, optional=True)
        return self.properties[index].clock_rate // 1000

    def sleep(self, cycles: int) -> None:
        """Queues modelled work on the current stream."""
        device = torch._C._accelerator_getDeviceIndex()
        stream = torch._C._accelerator_getStream(device)
        nanoseconds = int(cycles) * 1_000_000 // self.properties[device].clock_rate
        torch.ops.pipellm.busy(device, stream.stream_id, nanoseconds)


def exchange_device(device: int) -> int:
    """Makes `device` current (a negative one changes nothing) and returns the previous one."""
    if device < 0:
        return -1
    previous: int = torch._C._accelerator_getDeviceIndex()
    torch._C._accelerator_setDeviceIndex(device)
    return previous


def synchronize() -> None:
    torch._C._accelerator_synchronizeDevice(torch._C._accelerator_getDeviceIndex())
