"""The emulated GPU under this process's torch, and the one place that knows over which driver.

By default that is the fake one of fake_driver.cpp, which is lazy: it does everything at the latest
moment that CUDA's rules allow. Where PIPELLM_TEST_POLICY names a policy it is PipeLLM's own, with
that policy. Tests call `install()` in their own process, by the `gpu` fixture; as a program,
`python emulated_gpu.py PROGRAM ARGS...` does so and then runs PROGRAM.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

POLICY = "PIPELLM_TEST_POLICY"
FAKE_DRIVER = "PIPELLM_TEST_FAKE_DRIVER"  # its library
FAKE_CONFIDENTIAL = "PIPELLM_TEST_FAKE_CONFIDENTIAL"  # set: it is under confidential computing

DEVICES = 2
MEMORY = 1 << 30
H2D, D2H = 0, 1
CONTEXT_LOST = 719


@dataclass(frozen=True)
class Gpu:
    """What a test can see and do beneath the copy seam."""

    copies: Callable[[int], int]
    """How many copies have crossed, by direction."""
    lose_context: Callable[[], None] | None
    """Fails the next copy, as a message that does not authenticate does. The fake driver can."""


def install() -> Gpu:
    policy = os.environ.get(POLICY)
    return install_on_fake_driver() if policy is None else install_on_own_driver(policy)


def install_on_fake_driver() -> Gpu:
    from pipellm.gpu.emulated.build import backend_library
    from pipellm.gpu.emulated.cuda import DeviceProperties, install

    driver = ctypes.CDLL(os.environ[FAKE_DRIVER])
    driver.fake_driver.restype = ctypes.c_void_p
    driver.fake_driver.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_int]
    driver.fake_copies.restype = ctypes.c_int64
    properties = DeviceProperties(
        name="Fake H100",
        major=9,
        minor=0,
        total_memory=MEMORY,
        multi_processor_count=132,
        clock_rate=1_980_000,
    )
    address = driver.fake_driver(DEVICES, MEMORY, FAKE_CONFIDENTIAL in os.environ)
    install(backend_library(), address, [properties] * DEVICES)
    return Gpu(driver.fake_copies, lambda: driver.fake_fail_next_copy(CONTEXT_LOST))


def install_on_own_driver(policy: str) -> Gpu:
    from pipellm import _native
    from pipellm.gpu import emulated
    from pipellm.gpu.emulated.profile import PROFILES
    from pipellm.runtime.statistics import Statistics
    from pipellm.settings import Settings

    statistics = Statistics(None)
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.toml"
        fast = (PROFILES / "fast.toml").read_text()
        small.write_text(fast.replace("memory_gib = 16", f"memory_gib = {MEMORY >> 30}"))
        settings = Settings.parse(f"emulated:{DEVICES}", str(small), policy)
        emulated.install(settings, statistics)
    transfers = [_native.COUNTERS.index(f"{name}_transfers") for name in ("h2d", "d2h")]
    return Gpu(lambda direction: statistics.counters[transfers[direction]], None)


def confidential_environment() -> dict[str, str]:
    """What makes a program's GPU a confidential one, over the driver that this process uses."""
    return {FAKE_CONFIDENTIAL: "1"} | ({POLICY: "serial"} if POLICY in os.environ else {})


if __name__ == "__main__":
    install()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
