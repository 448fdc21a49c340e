"""The base class of `torch.cuda.Stream`, and which stream is current."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

CUDA_DEVICE_TYPE = 1  # c10::DeviceType::CUDA

LOWEST_PRIORITY, HIGHEST_PRIORITY = 0, -1


class CudaStreamBase(torch.Stream):
    """`torch._C._CudaStreamBase` of a CUDA build: a stream by its id, or the next of the pool."""

    def __new__(
        cls,
        priority: int = 0,
        stream_id: int = 0,
        device_index: int = 0,
        device_type: int = 0,
        stream_ptr: int = 0,
    ) -> CudaStreamBase:
        make = super().__new__
        if stream_id or device_index or device_type:
            return make(
                cls, stream_id=stream_id, device_index=device_index, device_type=device_type
            )
        device = torch._C._accelerator_getDeviceIndex()
        if stream_ptr:
            return make(
                cls, stream_id=stream_ptr, device_index=device, device_type=CUDA_DEVICE_TYPE
            )
        return make(cls, device=torch.device("cuda", device), priority=priority)

    @property
    def cuda_stream(self) -> int:
        """The handle. A stream has no address here; its id is unique and 0 for the default one."""
        return self.stream_id

    @property
    def priority(self) -> int:
        priority: int = torch.ops.pipellm.stream_priority(self.device_index, self.stream_id)
        return priority

    @staticmethod
    def priority_range() -> tuple[int, int]:
        return LOWEST_PRIORITY, HIGHEST_PRIORITY


StreamData = tuple[int, int, int]
"""(stream id, device index, device type), as `torch.cuda` passes streams around."""


def current_stream(device: int) -> StreamData:
    stream = torch._C._accelerator_getStream(device)
    return stream.stream_id, stream.device_index, stream.device_type


def default_stream(device: int) -> StreamData:
    return 0, device, CUDA_DEVICE_TYPE


def external_stream(handle: int, device: int) -> StreamData:
    return handle, device, CUDA_DEVICE_TYPE


def set_stream(stream_id: int, device_index: int, device_type: int) -> None:
    """Makes the stream current, and its device too, as CUDA builds do."""
    torch._C._accelerator_setStream(
        torch.Stream(stream_id=stream_id, device_index=device_index, device_type=device_type)
    )


def bindings() -> Mapping[str, Callable[..., object]]:
    return {
        "_CudaStreamBase": CudaStreamBase,
        "_cuda_getCurrentStream": current_stream,
        "_cuda_getCurrentRawStream": lambda device: current_stream(device)[0],
        "_cuda_getDefaultStream": default_stream,
        "_cuda_getStreamFromExternal": external_stream,
        "_cuda_setStream": set_stream,
        "_cuda_isCurrentStreamCapturing": lambda: False,
    }
