"""A driver whose copies are planned: the whole runtime under a test, without torch."""

from __future__ import annotations

import ctypes

from pipellm import _native
from pipellm.plan import PAPER, Costs, Rules, Tally
from pipellm.runtime.executor import Executor
from tests.native.driver_table import D2H, H2D
from tests.native.gpu import Gpu

KIB, MIB = 1 << 10, 1 << 20


class PlannedGpu(Gpu):
    """A confidential GPU under a policy that seals ahead."""

    def __init__(self, *, rules: Rules = PAPER, threads: int = 2) -> None:
        super().__init__(confidential=True, pins=True)
        self.tally = Tally()
        self.executors: list[Executor] = []

        def plan(device: int, context: _native.Context) -> None:
            executor = Executor(context, device, rules, Costs(), self._note)
            context.set_runtime(executor, threads=threads, arena_messages=rules.budget_chunks)
            self.executors.append(executor)

        self.driver.on_context(plan)

    def _note(self, tally: Tally) -> None:
        self.tally = tally

    @property
    def context(self) -> _native.Context:
        return self.driver.context(0)

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
