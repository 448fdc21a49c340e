"""Copies under a policy that plans: the runtime's own executor over a modelled driver."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from pipellm.gpu.emulated.profile import Profile
from pipellm.plan import Costs, Rules, Tally
from pipellm.plan.pipeline import overlap
from pipellm.predict.ranges import Range
from pipellm.runtime.executor import Executor
from pipellm.simulate.clock import Clock
from pipellm.simulate.context import Ordered
from pipellm.simulate.host import Host
from pipellm.simulate.link import Outbox, Paths
from pipellm.simulate.pool import Job, Pool
from pipellm.simulate.timeline import Ring, Timeline
from pipellm.transfers import CHUNK, Direction, messages
from pipellm.workloads.events import Copy

_NOP_STREAM = -1


@dataclass(slots=True)
class _Request:
    """A copy that the executor was asked for."""

    copy: Copy
    sent: bool = False
    end: float = 0.0
    """When the program may touch the host side again."""


class Planned:
    """Does the executor's orders in virtual time, as native/pipelined does in real time.

    What was sealed ahead lies in ordinary memory, so every copy goes by the path of pageable
    memory, whatever the program's own is.
    """

    def __init__(
        self,
        profile: Profile,
        host: Host,
        clock: Clock,
        timeline: Timeline,
        rules: Rules,
    ) -> None:
        self.tally: Tally | None = None
        self.next = {Direction.H2D: 1, Direction.D2H: 1}
        """The number of the next message, and so its IV before masking."""
        self.pool = Pool(host.sealing(host.workers))
        self._host = host
        self._seal_rate = host.sealing(1)
        self._scan_rate = host.scan * 1e9
        self._decision = host.decision * 1e-6
        self._clock = clock
        self._timeline = timeline
        paths = Paths(profile.on)
        self._in = paths.of(Direction.H2D, pinned=False)
        self._out = paths.of(Direction.D2H, pinned=False)
        self._outbox = Outbox(timeline)
        self._requests: dict[int, _Request] = {}
        self._ordinal = 0
        self._unsent = 0
        self._stale: set[int] = set()
        self._buffers: dict[int, Range] = {}  # of the speculations there are
        self._landing: deque[tuple[float, int, Copy]] = deque()
        self._touched: dict[int, float] = {}  # first byte, host or device: when it has landed
        self._landed: dict[int, float] = {}  # by stream
        costs = Costs(
            nop_ns=round(self._in.toll * 1e9),
            seal_ns=round(CHUNK / host.sealing(host.workers) * 1e9),
        )
        self._executor = Ordered(self, Executor(0, rules, costs, self._note), clock.nanoseconds)

    # The program's side ---------------------------------------------------------------------------

    def copy(self, copy: Copy) -> None:
        self._ordinal += 1
        ordinal = self._ordinal
        request = self._requests[ordinal] = _Request(copy)
        self._unsent += 1
        blocking = copy.blocking or not copy.pinned
        self._executor.request(
            *(ordinal, copy.direction, copy.address, copy.nbytes, copy.device_address),
            *(copy.stream, blocking),
        )
        if blocking and (copy.blocking or copy.direction is Direction.D2H):
            self._clock.wait_until(request.end)

    def order(self, stream: int | None) -> None:
        if self._unsent:
            self._executor.order(stream)

    def synchronize(self, stream: int | None) -> None:
        self._executor.synchronize(stream)
        self._clock.wait_until(self._timeline.finish(stream))
        if stream is None:
            self._clock.wait_until(max(self._landed.values(), default=0.0))
        else:
            self._clock.wait_until(self._landed.get(stream, 0.0))

    def write(self, address: int, nbytes: int) -> None:
        for speculation, buffer in self._buffers.items():
            if overlap(buffer, (address, nbytes)):
                self._stale.add(speculation)

    # The executor's side --------------------------------------------------------------------------

    def speculate(
        self, id: int, address: int, nbytes: int, first: int, last: int, number: int, /
    ) -> None:
        self._buffers[id] = (address, nbytes)
        self.pool.seal(self._clock.now, id, min(last * CHUNK, nbytes) - first * CHUNK)

    def unchanged(self, id: int, /) -> bool:
        job = self.pool.get(self._clock.now, id)
        if job is None or id in self._stale:
            return False
        self._clock.spend(min(job.sealed, Ring.SLOTS * CHUNK) / self._scan_rate)
        return True

    def whole(self, id: int, /) -> bool:
        job = self.pool.get(self._clock.now, id)
        return job is not None and job.sealed >= job.asked

    def next_number(self, direction: Direction, /) -> int:
        return self.next[direction]

    def think(self) -> None:
        self._clock.spend(self._decision)

    def relinquish(self, id: int, /) -> None:
        job = self._forget(id)
        if job is not None:  # wiped by the pool
            seconds = job.sealed / self._host.moving(self._host.workers)
            self.pool.interrupt(self._clock.now, seconds)

    def send(self, ordinal: int, number: int, /) -> None:
        self._send(ordinal, number, None)

    def commit(self, ordinal: int, number: int, speculation: int, /) -> None:
        self._send(ordinal, number, speculation)

    def _send(self, ordinal: int, number: int, speculation: int | None) -> None:
        request = self._requests.pop(ordinal)
        copy, clock = request.copy, self._clock
        nbytes = copy.nbytes
        self._take(Direction.H2D, number, messages(nbytes))
        clock.wait_until(self._touched.get(copy.address, 0.0))
        clock.wait_until(self._touched.get(copy.device_address, 0.0))
        clock.spend(self._in.toll)
        pieces = self._prepare(nbytes, speculation)
        host, request.end = self._outbox.send(
            clock.now, copy.stream, nbytes, self._in.engine(nbytes), pieces
        )
        clock.wait_until(host)
        self._unsent -= 1

    def send_nops(self, number: int, count: int, /) -> None:
        self._take(Direction.H2D, number, count)
        for _ in range(count):
            self._clock.spend(self._in.toll)
            host, _ = self._outbox.send(
                self._clock.now, _NOP_STREAM, 1, self._in.engine(1), [(1, 1 / self._seal_rate)]
            )
            self._clock.wait_until(host)

    def receive(self, ordinal: int, number: int, /) -> None:
        request = self._requests.pop(ordinal)
        copy, clock = request.copy, self._clock
        nbytes = copy.nbytes
        self._take(Direction.D2H, number, messages(nbytes))
        clock.spend(self._out.toll)
        engine = self._out.engine(nbytes)
        arrived = self._timeline.copy(copy.stream, Direction.D2H, clock.now, engine)
        opening = nbytes / self.pool.rate
        self.pool.interrupt(clock.now, opening)
        first = arrived - engine * (1 - min(CHUNK / nbytes, 1.0))
        last = min(nbytes, CHUNK) / self._seal_rate
        landed = max(first + opening, arrived + last, self._landed.get(copy.stream, 0.0))
        self._landing.append((landed, ordinal, copy))
        self._landed[copy.stream] = landed
        self._touched[copy.address] = self._touched[copy.device_address] = landed
        request.end = landed
        self._unsent -= 1

    def news(self) -> list[tuple[int, int, int]]:
        return [(job.id, _chunks(job), 0) for job in self.pool.news(self._clock.now)]

    def landed(self) -> list[int]:
        ordinals = []
        while self._landing and self._landing[0][0] <= self._clock.now:
            landed, ordinal, copy = self._landing.popleft()
            ordinals.append(ordinal)
            for address in (copy.address, copy.device_address):
                if self._touched.get(address) == landed:
                    del self._touched[address]
        return ordinals

    # ----------------------------------------------------------------------------------------------

    def _note(self, tally: Tally) -> None:
        self.tally = tally

    def _take(self, direction: Direction, number: int, count: int) -> None:
        if number != self.next[direction]:
            raise RuntimeError(f"{direction.name} message {number} is not the next one")
        self.next[direction] += count

    def _forget(self, speculation: int) -> Job | None:
        self._buffers.pop(speculation, None)
        self._stale.discard(speculation)
        return self.pool.remove(self._clock.now, speculation)

    def _prepare(self, nbytes: int, speculation: int | None) -> list[tuple[int, float]]:
        """Put the messages of a copy into their slots: in pieces, each of bytes and seconds."""
        if speculation is None:
            return [(nbytes, self._seal(nbytes, self._crew(nbytes)))]
        job = self._forget(speculation)
        if job is None:
            raise RuntimeError(f"there is no speculation {speculation}")
        # A single worker goes on sealing ahead (native/pipelined/pipeline_actions.cpp).
        threads = self._crew(nbytes) if self._host.workers > 1 else 1
        sealed = int(job.sealed)
        pieces = [(sealed, self._move(sealed, threads))] if sealed else []
        if sealed < nbytes:
            pieces.append((nbytes - sealed, self._seal(nbytes - sealed, threads)))
        return pieces

    def _crew(self, nbytes: int) -> int:
        """How many threads prepare a copy: the caller, and the pool if there is enough to do."""
        return self._host.workers + 1 if nbytes > CHUNK else 1

    def _seal(self, nbytes: int, threads: int) -> float:
        host = self._host
        seconds = max(nbytes / host.sealing(threads), min(nbytes, CHUNK) / self._seal_rate)
        return self._together(seconds, threads)

    def _move(self, nbytes: int, threads: int) -> float:
        host = self._host
        seconds = max(nbytes / host.moving(threads), min(nbytes, CHUNK) / host.moving(1))
        return self._together(seconds, threads)

    def _together(self, seconds: float, threads: int) -> float:
        if threads > 1:
            self.pool.interrupt(self._clock.now, seconds)
        return seconds


def _chunks(job: Job) -> int:
    """How many of its chunks are sealed."""
    return messages(job.asked) if job.sealed >= job.asked else int(job.sealed) // CHUNK
