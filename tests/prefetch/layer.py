"""A layer that carries out what the planner orders, and checks each order as it does."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from pipellm.predict.ranges import Range
from pipellm.prefetch import Evict, News, Order, Planner, Transfer, What

MIB = 1 << 20
TRANSFER = 4 * MIB
QUEUED = 4 * TRANSFER


def overlap(one: Range, other: Range) -> bool:
    return one[0] < other[0] + other[1] and other[0] < one[0] + one[1]


def inside(one: Range, other: Range) -> bool:
    return other[0] <= one[0] and one[0] + one[1] <= other[0] + other[1]


class Layer:
    """Buffer, queue and link around one planner. A `prompt` one tells it all at once.

    What a prompt planner orders must fit what is there; a late one's orders are put right. One that
    `checks_later` takes what it finds for a hit, and sees then whether it had changed.
    """

    def __init__(self, room: int, *, prompt: bool = True, checks_later: bool = False) -> None:
        self.planner = Planner(TRANSFER)
        self.prompt = prompt
        self.checks_later = checks_later
        self.room = room
        self.there: set[Range] = set()
        self.queue: deque[list[Range]] = deque()
        self.homeward: list[Range] = []
        self.unfit: set[Range] = set()
        self.stale: set[Range] = set()
        self.news: list[News] = []
        self.transferred: list[Range] = []
        self.pieces_ordered = self.transfers = 0
        self.happen(News(What.ROOM, 0, room))

    # What the program does ------------------------------------------------------------------------

    def request(self, key: Range) -> int:
        """Returns how many bytes were found."""
        ended = {piece for piece in self.there if inside(piece, key)}
        changed = sorted(ended & self.stale)
        stale = bool(changed) and not self.checks_later
        found = 0 if stale else sum(nbytes for _, nbytes in ended)
        self.there -= ended
        self.stale -= ended
        self.take_back(lambda piece: inside(piece, key))
        what = What.STALE if stale else What.HIT if found else What.MISS
        self.happen(News(what, *key, 0, found))
        if self.checks_later:
            self.happen(*(News(What.CHANGED, *piece) for piece in changed))
            found -= sum(nbytes for _, nbytes in changed)
        return found

    def read_back(self, key: Range) -> None:
        self.end(key)
        self.homeward.append(key)
        self.happen(News(What.READ_BACK, *key))

    def land(self, at: int = 0) -> None:
        if self.homeward:
            address, nbytes = self.homeward.pop(at % len(self.homeward))
            half = nbytes // 2
            self.happen(
                News(What.LANDED, address, half), News(What.LANDED, address + half, nbytes - half)
            )

    def synchronize(self) -> None:
        while self.homeward:
            self.land()
        self.happen(News(What.SYNCHRONIZE))

    def free(self, key: Range) -> None:
        self.end(key)
        self.happen(News(What.FREED, *key))

    def write(self, key: Range) -> None:
        self.stale |= {piece for piece in self.there if overlap(piece, key)}

    # What happens meanwhile -----------------------------------------------------------------------

    def transfer(self, times: int = 1) -> None:
        """The link carries the next transfers, as far as there is room."""
        for _ in range(times):
            if not self.queue:
                return
            pieces = self.queue[0]
            if self.used + sum(nbytes for _, nbytes in pieces) > self.room:
                return
            self.queue.popleft()
            arrived = [piece for piece in pieces if piece not in self.unfit]
            self.transferred += arrived
            self.there.update(arrived)
            assert self.used <= self.room
            self.happen(
                *(News(What.TRANSFERRED, *piece) for piece in arrived),
                *(News(What.REFUSED, *piece) for piece in pieces if piece in self.unfit),
            )

    def idle(self) -> None:
        """The link carries all that it may."""
        before = None
        while before != (before := (len(self.transferred), len(self.queue))):
            self.transfer()

    def drop(self) -> None:
        """Device memory is short."""
        dropped = [News(What.DROPPED, *piece) for piece in self.there]
        self.there.clear()
        self.stale.clear()
        self.happen(*dropped)

    def resize(self, room: int) -> None:
        if self.used > room:
            self.drop()
        self.room = room
        self.happen(News(What.ROOM, 0, room))

    # ----------------------------------------------------------------------------------------------

    @property
    def used(self) -> int:
        return sum(nbytes for _, nbytes in self.there)

    @property
    def queued(self) -> list[Range]:
        return [piece for pieces in self.queue for piece in pieces]

    def end(self, key: Range) -> None:
        self.there = {piece for piece in self.there if not overlap(piece, key)}
        self.take_back(lambda piece: overlap(piece, key))

    def take_back(self, which: object) -> None:
        assert callable(which)
        left = ([piece for piece in pieces if not which(piece)] for pieces in self.queue)
        self.queue = deque(pieces for pieces in left if pieces)

    def happen(self, *news: News) -> None:
        self.news += news
        if self.prompt:
            self.tell()

    def tell(self) -> None:
        """The planner hears of all that happened."""
        news, self.news = self.news, []
        self.carry_out(self.planner.tell(news))

    def carry_out(self, orders: Iterable[Order]) -> None:
        for order in orders:
            if isinstance(order, Evict):
                self.evict(order.pieces)
            else:
                self.enqueue(order)

    def evict(self, pieces: tuple[Range, ...]) -> None:
        held = self.there | set(self.queued)
        if self.prompt:
            assert set(pieces) <= held, "evicted what was not there"
        self.there -= set(pieces)
        self.stale -= set(pieces)
        self.take_back(lambda piece: piece in pieces)

    def enqueue(self, order: Transfer) -> None:
        assert 0 < order.nbytes <= TRANSFER
        self.transfers += 1
        self.pieces_ordered += len(order.pieces)
        new: list[Range] = []
        again: list[Range] = []
        for piece in order.pieces:
            held = [other for other in (*self.there, *self.queued, *new) if overlap(piece, other)]
            away = any(overlap(piece, other) for other in self.homeward)
            if self.prompt:
                assert not held, "ordered twice"
                assert not away, "not home yet"
            if piece in held:
                again.append(piece)
            elif held or away:
                self.news.append(News(What.DROPPED, *piece))
            else:
                new.append(piece)
        self.news += [News(What.TRANSFERRED, *piece) for piece in again if piece in self.there]
        if new:
            self.queue.append(new)
        if self.prompt:
            assert sum(nbytes for _, nbytes in self.queued) <= QUEUED
