"""A GPU with the prefetching layer over its driver, as its client and its planner see it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipellm import _native
from pipellm.bench.driver_table import DriverTable
from pipellm.prefetch import What

from .gpu import Gpu

MIB = 1 << 20
BUDGET = 8 * MIB
TRANSFER = 512 << 10


class PrefetchingGpu(DriverTable):
    """`below` is the emulated driver, whose counters tell what crossed the link."""

    def __init__(
        self, below: Gpu | None = None, *, budget: int = BUDGET, quiet_ns: int = 250_000
    ) -> None:
        self.below = below or Gpu()
        self.layer = _native.PrefetchDriver(
            self.below.driver,
            budget=budget,
            transfer_bytes=TRANSFER,
            threads=3,
            quiet_ns=quiet_ns,
        )
        super().__init__(self.layer)
        self.budget = budget
        self.idle = self.stream()
        self.seen: list[tuple[int, int, int, int, int]] = []

    def warm_up(self) -> None:
        """Until the prefetch buffer has all the memory that it may have."""
        host = self.host_alloc(self.budget)
        self.synchronize()
        pieces = [(host + start, TRANSFER) for start in range(0, self.budget, TRANSFER)]
        for piece in pieces:
            self.prefetch(piece, wait=False)
        deadline = time.monotonic() + 30
        while self.layer.held(0) < self.budget:
            assert time.monotonic() < deadline
            self.synchronize()
        self.layer.evict(0, pieces)
        self.call("host_free", host)
        self.news()

    def news(self) -> list[tuple[What, int, int]]:
        """What happened since the last time: what, where, how many bytes."""
        news = [(What(each[0]), each[1], each[2]) for each in self.layer.await_news(0, 0)]
        self.seen += [(int(what), address, nbytes, 0, 0) for what, address, nbytes in news]
        return news

    def prefetch(self, *pieces: tuple[int, int], wait: bool = True) -> None:
        """Orders a transfer, and returns when each piece of it was dealt with."""
        self.layer.transfer(0, list(pieces))
        left = set(pieces)
        ends = (What.TRANSFERRED, What.REFUSED, What.DROPPED)
        deadline = time.monotonic() + 30
        while wait and left:
            self.synchronize(self.idle)  # the buffer grows in calls of the program
            assert time.monotonic() < deadline, left
            for each in self.layer.await_news(0, 1_000_000):
                if What(each[0]) in ends:
                    left.discard((each[1], each[2]))

    @contextmanager
    def crossing(self) -> Iterator[list[int]]:
        """How many copies to the device cross the link meanwhile: the list's one number."""
        counted = [0]
        before = self.below.counted["h2d_transfers"]
        yield counted
        counted[0] = self.below.counted["h2d_transfers"] - before
