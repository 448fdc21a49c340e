"""Copies that are prefetched into device memory: the runtime's planner over a modelled layer."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipellm.gpu.emulated.profile import Profile
from pipellm.gpu.roofline import Roofline
from pipellm.prefetch import TRANSFER, News, Tally, What
from pipellm.simulate.clock import Clock
from pipellm.simulate.copy_threads import HASHED, TRANSFERS, CopyThreads, Demand, Return
from pipellm.simulate.host import Host
from pipellm.simulate.link import Outbox, Paths
from pipellm.simulate.timeline import Timeline
from pipellm.transfers import CHUNK, Direction
from pipellm.workloads.events import Compute, Copy

_SHARE = 1 / 20
"""Of the device's memory that is left to the layer (I: vLLM, which takes most, leaves a tenth)."""
_MATCH = 3e-6
"""Seconds that the request path takes on the caller's thread (I: the most that it may)."""
_H2D, _D2H = Direction.H2D, Direction.D2H  # an enumeration's members are slow to look up
_MISS, _HIT, _STALE = What.MISS, What.HIT, What.STALE
_LAUNCHED = 64
"""Device copies in one launch, at most (native/prefetch/device_copy.cpp)."""
_CAPTURED = 128 << 10
"""An asynchronous copy of so many bytes is captured while the caller waits."""


@dataclass(slots=True)
class _Due:
    """Device copies on one stream that one launch will do."""

    copies: int = 0
    nbytes: int = 0
    ready: float = 0.0
    """When what they copy from is there, but for the demands."""
    freed: int = 0
    """Bytes of the buffer that are free when they are done."""
    demands: list[Demand] = field(default_factory=list)
    returns: list[Return] = field(default_factory=list)


class Prefetching:
    """The request path of native/prefetch, in virtual time."""

    def __init__(self, profile: Profile, host: Host, clock: Clock, timeline: Timeline) -> None:
        self.threads = CopyThreads(profile, host, timeline, int(profile.memory_bytes * _SHARE))
        self.tally: Tally | None = self.threads.planner.tally
        self._host = host
        self._clock = clock
        self._timeline = timeline
        self._roofline = Roofline.of(profile, confidential=True)
        self._outbox = Outbox(timeline)
        paths = Paths(profile.on)
        self._in = paths.of(_H2D, pinned=False)
        self._out = paths.of(_D2H, pinned=False)
        self._due: dict[int, _Due] = {}
        self._checked = 0.0  # when the checking threads are done

    def copy(self, copy: Copy) -> None:
        self._clock.spend(_MATCH)
        self.threads.advance(self._clock.now)
        if copy.direction is _H2D:
            self._send(copy)
        else:
            self._receive(copy)
        if copy.blocking:
            self.synchronize(copy.stream)

    def order(self, stream: int | None) -> None:
        for each in list(self._due) if stream is None else (stream,):
            self._launch(each)

    def synchronize(self, stream: int | None) -> None:
        clock, threads = self._clock, self.threads
        self.order(stream)
        threads.tell(clock.now, News(What.SYNCHRONIZE))
        clock.wait_until(self._timeline.finish(stream))
        threads.advance(clock.now)
        while not threads.all_home:
            clock.wait_until(threads.next_home())
            threads.advance(clock.now)
        clock.wait_until(threads.next_home())
        threads.advance(clock.now)

    def write(self, address: int, nbytes: int) -> None:
        self.threads.advance(self._clock.now)
        self.threads.buffer.write(address, nbytes)

    # ----------------------------------------------------------------------------------------------

    def _send(self, copy: Copy) -> None:
        threads, now = self.threads, self._clock.now
        address, nbytes = copy.address, copy.nbytes
        aside = threads.returns.get((address, nbytes))
        if aside is not None:
            threads.tell(now, News(What.HIT, address, nbytes, copy.stream, nbytes))
            self.order(None)
            self._add(copy.stream, nbytes, ready=aside.aside)
            return
        found = threads.buffer.request(address, nbytes)
        threads.touched(now)
        what, there = _MISS, 0
        if found:
            what = _HIT
            for piece in found:
                there += piece.key[1]
                if piece.stale:
                    what = _STALE
        if what is _STALE:
            threads.buffer.release(there)
            there = 0
        threads.tell(now, News(what, address, nbytes, copy.stream, there))
        stays = copy.pinned and not copy.blocking
        if there:
            ready = max([piece.ready or 0.0 for piece in found])
            self._add(copy.stream, there, ready=self._check(there, ready, stays), freed=there)
        if there < nbytes:
            self._miss(copy, nbytes - there, stays)

    def _check(self, nbytes: int, ready: float, stays: bool) -> float:
        """Compare the bytes: on a thread of ours, or on the caller's; returns when it is done."""
        host, clock = self._host, self._clock
        if not stays:
            clock.wait_until(ready)
            clock.spend(nbytes / (HASHED * 1e9))
            return clock.now
        rate = host.spread(HASHED, host.workers)
        self._checked = max(self._checked, clock.now, ready) + nbytes / rate
        return self._checked

    def _miss(self, copy: Copy, nbytes: int, stays: bool) -> None:
        if stays or (not copy.blocking and nbytes <= _CAPTURED):
            if not stays:
                self._clock.spend(nbytes / (self._host.copy * 1e9))
            direct = 2 * nbytes > TRANSFER
            if direct:
                self._launch(copy.stream)
            stream = copy.stream if direct else TRANSFERS
            demand = self.threads.demand(self._clock.now, nbytes, stream)
            self._add(copy.stream, 0 if direct else nbytes, demand=demand)
            return
        self._launch(copy.stream)
        clock = self._clock
        clock.spend(self._in.toll)
        host, _ = self._outbox.send(
            clock.now,
            copy.stream,
            nbytes,
            self._in.engine(nbytes),
            [(nbytes, self.threads.seal(nbytes))],
        )
        clock.wait_until(host)
        self.threads.copied_by_caller(clock.now)

    def _receive(self, copy: Copy) -> None:
        clock, threads, nbytes = self._clock, self.threads, copy.nbytes
        key = (copy.address, nbytes)
        threads.buffer.read_back(*key)
        threads.touched(clock.now)
        threads.tell(clock.now, News(What.READ_BACK, *key))
        if copy.pinned and not copy.blocking and self._stage(nbytes):
            out = threads.returns[key] = Return(key, copy.stream)
            self._add(copy.stream, nbytes, out=out)
            return
        self._launch(copy.stream)
        clock.spend(self._out.toll)
        engine = self._out.engine(nbytes)
        arrived = self._timeline.copy(copy.stream, _D2H, clock.now, engine)
        clock.wait_until(arrived + threads.seal(min(nbytes, CHUNK)))
        threads.copied_by_caller(clock.now)
        threads.tell(clock.now, News(What.LANDED, *key))

    def _stage(self, nbytes: int) -> bool:
        """Room to set a read-back aside, if need be when others are home."""
        clock, threads = self._clock, self.threads
        while not threads.buffer.stage(nbytes):
            self.order(None)
            if threads.all_home:
                return False
            clock.wait_until(threads.next_home())
            threads.advance(clock.now)
        return True

    def _add(
        self,
        stream: int,
        nbytes: int,
        *,
        ready: float = 0.0,
        freed: int = 0,
        demand: Demand | None = None,
        out: Return | None = None,
    ) -> None:
        due = self._due.get(stream)
        if due is not None and due.copies == _LAUNCHED:
            self._launch(stream)
            due = None
        if due is None:
            due = self._due[stream] = _Due()
        due.copies += 1
        due.nbytes += nbytes
        due.ready = max(due.ready, ready)
        due.freed += freed
        if demand is not None:
            due.demands.append(demand)
        if out is not None:
            due.returns.append(out)

    def _launch(self, stream: int) -> None:
        due = self._due.pop(stream, None)
        if due is None:
            return
        clock, timeline, threads = self._clock, self._timeline, self.threads
        clock.spend(self._roofline.launch_s)
        threads.advance(clock.now)
        timeline.hold(stream, max(due.ready, threads.settle(due.demands)))
        busy = self._roofline.device_seconds(Compute(0.0, 2.0 * due.nbytes))
        end = timeline.compute(stream, clock.now, busy)
        if due.freed:
            threads.release(end, due.freed)
        for copy in due.returns:
            copy.aside = end
            threads.go_home(copy)
