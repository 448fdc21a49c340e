"""Copies as confidential computing ships them: sealed on the calling thread, when asked for."""

from __future__ import annotations

from pipellm.gpu.emulated.profile import Profile
from pipellm.simulate.clock import Clock
from pipellm.simulate.device import Direct
from pipellm.simulate.host import Host
from pipellm.simulate.link import Outbox, Paths
from pipellm.simulate.timeline import Timeline
from pipellm.transfers import CHUNK, Direction, messages
from pipellm.workloads.events import Copy


class Serial(Direct):
    """`Context::copy_sealed_h2d` and `_d2h` (native/emulator/context_copy.cpp)."""

    def __init__(self, profile: Profile, host: Host, clock: Clock, timeline: Timeline) -> None:
        super().__init__(clock, timeline)
        self._seal = host.libcrypto * 1e9
        self._paths = Paths(profile.on)
        self._outbox = Outbox(timeline)

    def copy(self, copy: Copy) -> None:
        if copy.direction is Direction.D2H:
            self._receive(copy)
        else:
            self._send(copy)

    def _send(self, copy: Copy) -> None:
        clock, nbytes = self._clock, copy.nbytes
        path = self._paths.of(copy.direction, pinned=copy.pinned)
        if copy.pinned:  # facts: it blocks until all that was queued before it is done
            clock.wait_until(self._timeline.finish(copy.stream))
        engine = path.engine(nbytes)
        sealing = nbytes / self._seal
        if path.paced:
            tail = engine * _tail(nbytes) / nbytes
            sealing = max(sealing, path.call(nbytes) - tail)
        else:
            clock.spend(path.toll)
        host, end = self._outbox.send(clock.now, copy.stream, nbytes, engine, [(nbytes, sealing)])
        clock.wait_until(end if copy.blocking or copy.pinned else host)

    def _receive(self, copy: Copy) -> None:
        clock, nbytes = self._clock, copy.nbytes
        path = self._paths.of(copy.direction, pinned=copy.pinned)
        start = clock.now
        if not path.paced:
            clock.spend(path.toll)
        engine = path.engine(nbytes)
        arrived = self._timeline.copy(copy.stream, copy.direction, clock.now, engine)
        first = arrived - engine * (1 - min(CHUNK / nbytes, 1.0))
        opened = max(first + nbytes / self._seal, arrived + _tail(nbytes) / self._seal)
        clock.wait_until(max(opened, start + path.call(nbytes)))


def _tail(nbytes: int) -> int:
    """Bytes of its last message."""
    return nbytes - (messages(nbytes) - 1) * CHUNK
