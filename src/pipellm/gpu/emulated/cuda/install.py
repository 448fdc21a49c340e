"""Puts the emulated GPU under this process's PyTorch, once and for good."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.cuda.nvtx

from pipellm.gpu.emulated.cuda import (
    autograd,
    comm,
    compiler,
    events,
    memory,
    missing,
    storage,
    streams,
    tensor_types,
)
from pipellm.gpu.emulated.cuda.devices import Devices
from pipellm.gpu.emulated.cuda.nvtx import Nvtx
from pipellm.gpu.emulated.cuda.properties import DeviceProperties
from pipellm.gpu.emulated.cuda.runtime import Cudart


def install(library: Path, driver_address: int, properties: Sequence[DeviceProperties]) -> None:
    """Makes `cuda:0`, `cuda:1`, ... of the driver's devices, one per entry of `properties`.

    The program sees those that CUDA_VISIBLE_DEVICES names when it first uses one.

    `library` is the torch backend (`build.backend_library()`), `driver_address` the address of a
    `PipellmDriver` table (native/link/driver_api.h) that stays valid until the process ends. Raises
    RuntimeError where the driver is of another version than the backend, ValueError where it has
    another number of devices.
    """
    backend = ctypes.CDLL(str(library))
    entry = backend.pipellm_backend_install
    entry.argtypes = [ctypes.c_void_p]
    status = entry(driver_address)
    if status != 0:
        raise RuntimeError(f"the emulated GPU's backend refused its driver (status {status})")
    if len(properties) != torch.ops.pipellm.driver_device_count():
        raise ValueError("the driver's devices and their properties differ in number")
    _fill_in_torch(Devices(properties))
    # Programs that ask whether cuDNN takes a tensor are told no; else each would be warned, too.
    torch._C._set_cudnn_enabled(False)
    autograd.install()
    storage.install()
    tensor_types.install()
    missing.install()
    compiler.install()


def _fill_in_torch(devices: Devices) -> None:
    bindings: dict[str, Callable[..., object]] = {
        **devices.bindings(),
        **streams.bindings(),
        **events.bindings(),
        **memory.bindings(),
        **comm.bindings(),
        **compiler.bindings(),
        **missing.bindings(),
    }
    bindings = {name: _own(name, function) for name, function in bindings.items()}
    for name, function in bindings.items():
        setattr(torch._C, name, function)
    cudart, nvtx = Cudart(), Nvtx()
    for name, value in {"_has_cuda": True, "_cudart": cudart, "_nvtx": nvtx}.items():
        setattr(torch._C, name, value)

    # The stream and event classes were derived from placeholders when torch was imported.
    classes = importlib.reload(torch.cuda.streams)
    taken_by_name_at_import = {
        torch.cuda: {
            "Stream": classes.Stream,
            "Event": classes.Event,
            "ExternalStream": classes.ExternalStream,
            "_cudart": cudart,
            "_is_in_bad_fork": bindings["_cuda_isInBadFork"],
            "_exchange_device": bindings["_cuda_exchangeDevice"],
            "_maybe_exchange_device": bindings["_cuda_maybeExchangeDevice"],
            # A real GPU's management library would count the real GPUs.
            "_device_count_nvml": lambda: -1,
            "device_memory_used": memory.device_memory_used,
            "clock_rate": devices.clock_rate,
            "_CudaDeviceProperties": DeviceProperties,
        },
        torch.cuda.graphs: {
            "_cuda_isCurrentStreamCapturing": bindings["_cuda_isCurrentStreamCapturing"]
        },
        torch.cuda.nvtx: {"_nvtx": nvtx},
    }
    for module, names in taken_by_name_at_import.items():
        for name, value in names.items():
            setattr(module, name, value)


def _own(name: str, function: Callable[..., object]) -> Callable[..., object]:
    """`function` as an object of its own.

    The tables of torch.compile are keyed by the function. One that had two names, or was another
    thing elsewhere (`dict`), would be traced as what it is not.
    """
    if isinstance(function, type) and function.__module__ != "builtins":
        return function

    def binding(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    binding.__name__ = binding.__qualname__ = name
    return binding
