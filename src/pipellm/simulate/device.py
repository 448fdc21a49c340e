"""Copies without sealing: confidential computing off, and its ideal."""

from __future__ import annotations

from typing import Protocol

from pipellm.gpu.emulated.profile import Profile
from pipellm.simulate.clock import Clock
from pipellm.simulate.link import Paths
from pipellm.simulate.timeline import Timeline
from pipellm.transfers import Direction
from pipellm.workloads.events import Copy


class Tally(Protocol):
    """What became of the swap-ins."""

    @property
    def hits(self) -> int:
        """Those that had been foreseen in time."""

    @property
    def misses(self) -> int:
        """The others."""


class Device(Protocol):
    """How one case does what a program asks for. All wait on the clock that they were made with."""

    @property
    def tally(self) -> Tally | None:
        """Where a planner decides."""

    def copy(self, copy: Copy) -> None:
        """A copy is asked for; returns when the program's thread would get control back."""

    def order(self, stream: int | None) -> None:
        """Something depends on the copies asked for on a stream (None: on any)."""

    def synchronize(self, stream: int | None) -> None:
        """The program waits for them, and for all else on that stream."""

    def write(self, address: int, nbytes: int) -> None:
        """The program changes host memory."""


class Direct:
    """Copies done when they are asked for: nothing is held back, nothing is read ahead."""

    def __init__(self, clock: Clock, timeline: Timeline) -> None:
        self.tally: Tally | None = None
        self._clock = clock
        self._timeline = timeline

    def order(self, stream: int | None) -> None:
        """Nothing to do."""

    def synchronize(self, stream: int | None) -> None:
        """Waits for all that is on the stream."""
        self._clock.wait_until(self._timeline.finish(stream))

    def write(self, address: int, nbytes: int) -> None:
        """Nothing to do."""


class Clear(Direct):
    """Copies in the clear (`Context::copy_clear`, native/emulator): `off` and `ideal`.

    Off: on the link without confidential computing. Ideal, `confidential`: on the link with it, and
    with its tolls. The ideal engine is the one that serves ordinary memory, where what is sealed
    lies: what a profile says of pinned memory contains the kernel's sealing (facts).
    """

    def __init__(
        self, profile: Profile, clock: Clock, timeline: Timeline, *, confidential: bool
    ) -> None:
        super().__init__(clock, timeline)
        self._confidential = confidential
        self._paths = Paths(profile.link(confidential))
        self._launch = profile.off.launch_us * 1e-6

    def copy(self, copy: Copy) -> None:
        clock = self._clock
        path = self._paths.of(copy.direction, pinned=copy.pinned and not self._confidential)
        engine = path.engine(copy.nbytes)
        start = clock.now
        if copy.pinned and not copy.blocking:
            clock.spend(path.toll or self._launch)
            self._timeline.copy(copy.stream, copy.direction, clock.now, engine)
            return
        host = path.toll if self._confidential else max(path.call(copy.nbytes) - engine, 0.0)
        end = self._timeline.copy(copy.stream, copy.direction, start + host, engine)
        # An asynchronous swap-in of pageable memory returns when the bytes are staged.
        staged = not copy.blocking and copy.direction is Direction.H2D
        clock.wait_until(start + host + engine if staged else end)
