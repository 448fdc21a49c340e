"""The emulated confidential GPU: `cuda:N` in a CPU-only PyTorch, over the native driver.

profile.py   what the GPU and its link are like, in numbers
device.py    the native driver, made from a profile
tampering.py an attack on a message, asked for by the user
visible_devices.py  CUDA_VISIBLE_DEVICES where it is meant for another machine
build.py     compiles the backend against the installed torch, once
backend/     torch's side of the device, a client of the driver's C table
cuda/        `torch.cuda` as programs expect it
"""

from __future__ import annotations

import atexit
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipellm import _native
    from pipellm.runtime.statistics import Statistics
    from pipellm.settings import Settings


_driver: _native.Driver | None = None


def installed() -> _native.Driver | None:
    """This process's driver, if it has an emulated GPU."""
    return _driver


def driver() -> _native.Driver:
    """This process's driver, for what `torch.cuda` has no name for.

    `driver().busy(device, stream, seconds)` queues modelled work; `driver().clock` is the emulated
    machine's. Raises RuntimeError in a process without an emulated GPU.
    """
    if _driver is None:
        raise RuntimeError("this process has no emulated GPU")
    return _driver


def install(settings: Settings, statistics: Statistics) -> None:
    """Gives this process's torch the emulated GPUs that `settings` describe.

    Once per process, before CUDA is first used. Raises UserError for whatever the user can put
    right: a profile with a fault, a CUDA build of torch, no compiler, a cache folder that cannot be
    written.
    """
    global _driver
    # Not above: the launcher reads profiles from this package, and must not wait for torch.
    from pipellm.gpu.emulated import cuda
    from pipellm.gpu.emulated.build import backend_library
    from pipellm.gpu.emulated.device import record
    from pipellm.gpu.emulated.profile import load
    from pipellm.gpu.emulated.visible_devices import VARIABLE, refuse_other_machines
    from pipellm.runtime.opening import open_under
    from pipellm.runtime.policy import Policy

    refuse_other_machines(os.environ.get(VARIABLE), settings.gpus)
    profile = load(settings.profile)
    library = backend_library()
    policy = Policy.named(settings.policy)
    opened = open_under(policy, profile, settings.gpus, statistics)
    if settings.trace is not None and statistics.directory is not None:
        record(opened, statistics.directory)
    if settings.tamper is not None:
        opened.tamper(settings.tamper.direction, settings.tamper.number)
    cuda.install(
        library,
        opened.api_address,
        [
            cuda.DeviceProperties(
                name=profile.name,
                major=profile.capability[0],
                minor=profile.capability[1],
                total_memory=profile.memory_bytes,
                multi_processor_count=profile.multiprocessors,
                clock_rate=profile.clock_mhz * 1000,
            )
        ]
        * settings.gpus,
    )
    opened.outlive_python()
    atexit.register(opened.stop_threads)
    _driver = opened
