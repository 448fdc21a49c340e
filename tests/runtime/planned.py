"""A driver whose copies are planned: the whole runtime under a test, without torch."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Mapping

from pipellm import _native
from pipellm.bench.driver_table import D2H, H2D
from pipellm.plan import PAPER, Costs, Rules
from pipellm.runtime import planning
from pipellm.runtime.speculation import SPECULATION
from tests.native.gpu import Gpu

KIB, MIB = 1 << 10, 1 << 20


class PlannedGpu(Gpu):
    """A confidential GPU under a policy that seals ahead."""

    def __init__(self, *, rules: Rules = PAPER, threads: int = 2, tells: bool = False) -> None:
        self._rules, self._threads, self._tells = rules, threads, tells
        self._tally = array("q", [0] * len(SPECULATION))
        super().__init__(confidential=True, pins=True)

    def lay_over(self) -> None:
        planning.plan(
            self.driver,
            self._rules,
            Costs(),
            counters=memoryview(self._tally),
            threads=self._threads,
            tells=self._tells,
        )

    @property
    def tally(self) -> Mapping[str, int]:
        self.settle()  # what was done without asking the planner has been told
        return dict(zip(SPECULATION, self._tally, strict=True))

    @property
    def context(self) -> _native.Context:
        return self.driver.context(0)

    def close(self) -> None:
        """Sends what waits, and stops the device's threads."""
        self.context.close()
        self.driver.stop_threads()

    def settle(self) -> None:
        """Waits until everything that was to be sealed ahead is sealed."""
        self.context.wait_idle()

    def load(self, host: int, nbytes: int, *, asynchronous: bool = True, stream: int = 0) -> bytes:
        """Swaps host memory in; what the device then holds."""
        device = self.malloc(nbytes)
        self.copy(H2D, device, host, nbytes, asynchronous=asynchronous, stream=stream)
        self.synchronize(stream)
        arrived = ctypes.string_at(device, nbytes)
        self.call("free", device)
        return arrived

    def store(self, host: int, content: bytes, *, asynchronous: bool = True) -> None:
        """Swaps `content` out of the device."""
        device = self.malloc(len(content))
        ctypes.memmove(device, content, len(content))
        self.copy(D2H, host, device, len(content), asynchronous=asynchronous)
        self.synchronize()
        self.call("free", device)
