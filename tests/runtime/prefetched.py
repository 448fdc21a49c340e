"""A driver whose copies are prefetched: the whole runtime under a test, without torch."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping

from pipellm import _native
from pipellm.prefetch import TRANSFER
from pipellm.runtime import planning
from pipellm.runtime.prefetching import PREFETCHING
from tests.native.gpu import Gpu

MIB = 1 << 20


class PrefetchedGpu(Gpu):
    """A confidential GPU as shipped, with the prefetch layer and its planner over it."""

    def __init__(self, *, budget: int = 64 * MIB) -> None:
        self._budget = budget
        self._tally = array("q", [0] * len(PREFETCHING))
        super().__init__(confidential=True, pins=False)

    def lay_over(self) -> None:
        self.driver.prefetch(
            interpreter=planning.interpreter(),
            budget=self._budget,
            transfer_bytes=TRANSFER,
            threads=1,
            quiet_ns=250_000,
            nap_ns=200_000,
            counters=memoryview(self._tally),
            tells=False,
        )

    @property
    def tally(self) -> Mapping[str, int]:
        return dict(zip(PREFETCHING, self._tally, strict=True))

    @property
    def context(self) -> _native.Context:
        return self.driver.context(0)

    def until(self, reached: Callable[[], bool]) -> None:
        """Waits until the planner has brought that about."""
        deadline = time.monotonic() + 60
        while not reached():
            assert time.monotonic() < deadline, self.tally
            self.synchronize()  # the buffer grows in calls of the program

    def close(self) -> None:
        self.context.close()
        self.driver.stop_threads()
