"""The base class of `torch.cuda.Event`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

import torch

_NO_IPC = "the emulated GPU has no events that other processes can open"


class CudaEventBase(torch.Event):
    """`torch._C._CudaEventBase` of a CUDA build. `blocking` changes nothing here: waiting
    for the device never spins."""

    _timed: bool

    def __new__(
        cls,
        enable_timing: bool = False,
        blocking: bool = False,
        interprocess: bool = False,
        external: bool = False,
    ) -> CudaEventBase:
        if interprocess:
            raise NotImplementedError(_NO_IPC)
        self = super().__new__(cls, device="cuda", enable_timing=enable_timing, blocking=blocking)
        self._timed = enable_timing
        return self

    @property
    def cuda_event(self) -> int:
        """The handle; 0 until the event is first recorded."""
        return self.event_id

    def elapsed_time(self, end_event: torch.Event) -> float:
        """Milliseconds of the device's time. Raises ValueError for events that were not recorded or
        not made for timing, torch.AcceleratorError for ones that were not reached yet."""
        if not self.event_id or not end_event.event_id:
            raise ValueError("Both events must be recorded before calculating elapsed time.")
        if not (self._timed and getattr(end_event, "_timed", True)):
            raise ValueError("Both events must be created with argument 'enable_timing=True'.")
        elapsed: float = torch.ops.pipellm.event_elapsed(self.event_id, end_event.event_id)
        return elapsed

    @classmethod
    def from_ipc_handle(cls, device: torch.device, handle: bytes) -> NoReturn:
        raise NotImplementedError(_NO_IPC)

    def ipc_handle(self) -> NoReturn:
        raise NotImplementedError(_NO_IPC)


def bindings() -> Mapping[str, Callable[..., object]]:
    return {"_CudaEventBase": CudaEventBase}
