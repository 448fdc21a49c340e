"""The GPUs, as NVIDIA's management library tells of them (through nvidia-ml-py, if installed)."""

from __future__ import annotations

import ctypes
from typing import Any

from pipellm.doctor.machine import Gpus

_LIBRARY = "libnvidia-ml.so.1"
"""Comes with the driver, and with nothing else."""


def read() -> Gpus:
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        return Gpus()
    try:
        import pynvml
    except ImportError:
        return Gpus(problem="nvidia-ml-py is not installed")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Gpus(problem=str(error))
    try:
        return _ask(pynvml)
    except pynvml.NVMLError as error:
        return Gpus(problem=str(error))
    finally:
        pynvml.nvmlShutdown()


def _ask(nvml: Any) -> Gpus:
    handles = map(nvml.nvmlDeviceGetHandleByIndex, range(nvml.nvmlDeviceGetCount()))
    names = tuple(nvml.nvmlDeviceGetName(handle) for handle in handles)
    driver = str(nvml.nvmlSystemGetDriverVersion())
    try:
        state = nvml.nvmlSystemGetConfComputeState()
        confidential = state.ccFeature == nvml.NVML_CC_SYSTEM_FEATURE_ENABLED
        ready = None
        if confidential:
            ready = bool(nvml.nvmlSystemGetConfComputeGpusReadyState())
        devtools = state.devToolsMode == nvml.NVML_CC_SYSTEM_DEVTOOLS_MODE_ON
    except nvml.NVMLError:  # a driver from before confidential computing, or a GPU without it
        return Gpus(driver=driver, names=names)
    return Gpus(
        driver=driver, names=names, confidential=confidential, devtools=devtools, ready=ready
    )
