"""What the simulated layer for prefetching does behind the program's back."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf

from pipellm.gpu.emulated.profile import Profile
from pipellm.predict.ranges import Range
from pipellm.prefetch import TRANSFER, News, Order, Planner, Transfer, What
from pipellm.simulate.host import Host
from pipellm.simulate.link import Outbox, Paths
from pipellm.simulate.prefetch_buffer import PrefetchBuffer
from pipellm.simulate.timeline import Timeline
from pipellm.transfers import CHUNK, Direction

TRANSFERS, _RETURNS = -2, -3
"""Streams of the copy thread and of the return thread."""
_H2D, _D2H = Direction.H2D, Direction.D2H  # an enumeration's members are slow to look up
_READ_BACK, _TRANSFERRED, _LANDED = What.READ_BACK, What.TRANSFERRED, What.LANDED
_CAPTURING = 4
"""Threads that copy together what a transfer gathers, and hash it (I)."""
HASHED = 33.8
"""GB/s that one thread hashes: 31 us a MiB of XXH3, measured on a Zen 5 core."""
_QUIET = 250e-6
"""Seconds that the link is left alone after a copy that the program did itself (I): such copies
come one after the other, and each would wait for a transfer of what was foreseen."""
_NAP = 200e-6
"""Seconds between two batches of news, at least (I)."""


@dataclass(slots=True, eq=False)
class Demand:
    """A copy to the device that was asked for and not foreseen."""

    nbytes: int
    since: float
    stream: int
    """Where its bytes go: the program's, or TRANSFERS if they are copied on within the device."""
    ready: float = inf
    """When it is on the device; known when its transfer has begun."""


@dataclass(slots=True, eq=False)
class Return:
    """A copy to the host: set aside on the device, then brought home."""

    key: Range
    stream: int
    aside: float = inf
    home: float = inf


class CopyThreads:
    """The planner's thread, the copy thread and the return thread, each in its own time.

    `advance` lets them do what they begin before a time. All other methods are told things that
    happen now, after that.
    """

    def __init__(self, profile: Profile, host: Host, timeline: Timeline, nbytes: int) -> None:
        """`nbytes`: of device memory that is left to the layer."""
        self.planner = Planner()
        self.buffer = PrefetchBuffer(nbytes)
        self.returns: dict[Range, Return] = {}
        """Those that are not home."""
        self._host = host
        self._timeline = timeline
        self._outbox = Outbox(timeline)
        paths = Paths(profile.on)
        self._in = paths.of(_H2D, pinned=False)
        self._out = paths.of(_D2H, pinned=False)
        self._sealing = host.sealing(host.workers)
        self._sealing_alone = host.sealing(1)
        self._capturing = [  # without hashing and with it
            host.spread(1 / (1 / host.copy + hashed / HASHED), _CAPTURING) for hashed in (0, 1)
        ]
        # The planner's thread
        self._news: list[tuple[float, int, News]] = []
        self._count = 0
        self._awake = 0.0
        self._orders: deque[tuple[float, Order]] = deque()
        # The copy thread
        self._copier = 0.0
        self._demands: deque[Demand] = deque()  # in the order of their requests
        self._changed = 0.0  # when queue or room last did
        self._releases: list[tuple[float, int]] = []
        # The return thread
        self._returner = 0.0
        self._homeward: deque[Return] = deque()
        self._home = 0.0  # when all that was begun is home
        self._quiet = 0.0  # when transfers of what was foreseen may begin again
        self.tell(0.0, News(What.ROOM, 0, self.buffer.room))

    def tell(self, time: float, news: News) -> None:
        """The planner's thread hears of it at `time`, or later."""
        self._count += 1
        heappush(self._news, (time, self._count, news))

    def demand(self, now: float, nbytes: int, stream: int) -> Demand:
        """A copy to be done before all that was foreseen."""
        demand = Demand(nbytes, now, stream)
        self._demands.append(demand)
        return demand

    def settle(self, demands: list[Demand]) -> float:
        """When all of these are on the device."""
        if not demands:
            return 0.0
        while demands[-1].ready == inf:  # they are carried in the order of their requests
            self._carry(max(self._copier, self._demands[0].since))
        return max([demand.ready for demand in demands])

    def release(self, time: float, nbytes: int) -> None:
        """So much of the buffer is free again at `time`."""
        heappush(self._releases, (time, nbytes))

    def touched(self, now: float) -> None:
        """A request, or a read-back, may have ended pieces."""
        self._changed = now

    def copied_by_caller(self, now: float) -> None:
        """The program's thread has done a copy itself."""
        self._quiet = now + _QUIET

    def go_home(self, copy: Return) -> None:
        """It is set aside at a time that is known now."""
        self._homeward.append(copy)

    def next_home(self) -> float:
        """When the next group of read-backs begins, or the last one ends."""
        if not self._homeward:
            return self._home
        return max(self._returner, self._homeward[0].aside)

    @property
    def all_home(self) -> bool:
        """Whether everything was begun to be brought home."""
        return not self._homeward

    def advance(self, now: float) -> None:
        """Do all that begins until `now`, in its order."""
        while True:
            # Of what begins at the same time, what is named here first.
            first, do = inf, self._carry_out
            if self._orders:
                first = self._orders[0][0]
            if self._releases and self._releases[0][0] < first:
                first, do = self._releases[0][0], self._release
            if self._news:
                plan = self._news[0][0]
                if plan < self._awake:
                    plan = self._awake
                if plan < first:
                    first, do = plan, self._plan
            if self._homeward:
                back = self.next_home()
                if back < first:
                    first, do = back, self._bring_home
            if self._demands:
                copy = self._demands[0].since
                if copy < self._copier:
                    copy = self._copier
                if copy < first:
                    first, do = copy, self._carry
            elif not self._homeward:
                copy = max(self._copier, self._changed, self._quiet)
                begins = copy < first and copy <= now
                # To look makes what is kept give its room, whenever the transfer begins.
                if (begins or self.buffer.keeps) and self.buffer.due() and copy < first:
                    first, do = copy, self._prefetch
            if first > now:
                return
            do(first)

    # ----------------------------------------------------------------------------------------------

    def _plan(self, now: float) -> None:
        batch = []
        while self._news and self._news[0][0] <= now:
            batch.append(heappop(self._news)[2])
        copies = 0
        for news in batch:
            if news[0] <= _READ_BACK:
                copies += 1
        done = now + copies * self._host.decision * 1e-6
        self._awake = max(done, now + _NAP)
        for order in self.planner.tell(batch):
            self._orders.append((done, order))

    def _release(self, now: float) -> None:
        self.buffer.release(heappop(self._releases)[1])
        self._changed = now

    def _carry_out(self, now: float) -> None:
        orders, self._changed = self._orders, now
        while orders and orders[0][0] == now:
            _, order = orders.popleft()
            if isinstance(order, Transfer):
                for piece in self.buffer.order(order):
                    self.tell(max(piece.ready or 0.0, now), News(_TRANSFERRED, *piece.key))
            else:
                self.buffer.evict(order.pieces)

    def _carry(self, now: float) -> None:
        """Those that wait share a transfer."""
        group = [self._demands.popleft()]
        nbytes = group[0].nbytes
        while (
            self._demands
            and self._demands[0].since <= now
            and nbytes + self._demands[0].nbytes <= TRANSFER
        ):
            group.append(self._demands.popleft())
            nbytes += group[-1].nbytes
        gathered = len(group) > 1
        end = self._transfer(
            now + (self._capture(nbytes, hashed=False) if gathered else 0),
            nbytes,
            TRANSFERS if gathered else group[0].stream,
        )
        for demand in group:
            demand.ready = end

    def _prefetch(self, now: float) -> None:
        pieces = self.buffer.due() or []
        nbytes = sum(piece.key[1] for piece in pieces)
        end = self._transfer(now + self._capture(nbytes, hashed=True), nbytes)
        self.buffer.begin(end)
        for piece in pieces:
            self.tell(end, News(_TRANSFERRED, *piece.key))

    def _transfer(self, start: float, nbytes: int, stream: int = TRANSFERS) -> float:
        engine = self._in.engine(nbytes)
        self._copier, end = self._outbox.send(
            start + self._in.toll, stream, nbytes, engine, [(nbytes, self.seal(nbytes))]
        )
        return end

    def _bring_home(self, now: float) -> None:
        group, nbytes = [], 0
        while self._homeward and self._homeward[0].aside <= now and nbytes < TRANSFER:
            group.append(self._homeward.popleft())
            nbytes += group[-1].key[1]
        engine = self._out.engine(nbytes)
        arrived = self._timeline.copy(_RETURNS, _D2H, now + self._out.toll, engine)
        # The next one may begin meanwhile: whoever waits lends a hand.
        self._returner = arrived - self._out.toll
        self._home = arrived + self.seal(min(nbytes, CHUNK))
        for copy in group:
            copy.home = self._home
            if self.returns.get(copy.key) is copy:
                del self.returns[copy.key]
            self.buffer.keep(copy.key, copy.aside)
            self.tell(copy.home, News(_LANDED, *copy.key))

    def seal(self, nbytes: int) -> float:
        """Seconds to seal or open a copy, by all threads."""
        together = nbytes / self._sealing
        alone = (nbytes if nbytes < CHUNK else CHUNK) / self._sealing_alone
        return together if together > alone else alone

    def _capture(self, nbytes: int, *, hashed: bool) -> float:
        return nbytes / self._capturing[hashed]
