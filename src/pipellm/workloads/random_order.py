"""Buffers loaded in uniformly random order: nothing that a predictor could know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from pipellm.transfers import CHUNK, Direction
from pipellm.workloads.events import Copy, Done, Event, Synchronize
from pipellm.workloads.placement import Placement


@dataclass(frozen=True)
class RandomOrder:
    """One buffer after the other, each waited for. One unit is one swap-in."""

    buffers: int = 64
    nbytes: int = 2 * CHUNK
    seed: int = 0
    name: str = field(default="random", init=False)
    unit: str = field(default="swaps", init=False)

    @property
    def model(self) -> str:
        return f"{self.nbytes // CHUNK} MiB"

    def events(self, now: Callable[[], float]) -> Iterator[Event]:
        host = Placement.host()
        addresses = [host.place(self.nbytes) for _ in range(self.buffers)]
        device = Placement.device().place(self.nbytes)
        order = Random(self.seed)
        while True:
            yield Copy(Direction.H2D, order.choice(addresses), self.nbytes, device)
            yield Synchronize()
            yield Done()
