"""The prefetch buffer of a simulated device, and the queue of transfers to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from pipellm.predict.ranges import Range, Ranges
from pipellm.prefetch import Transfer


@dataclass(slots=True, eq=False)
class Held:
    """A piece that was ordered, or left by a read-back, and has not ended."""

    key: Range
    ready: float | None = None
    """When it is there; None while its transfer waits."""
    kept: bool = False
    """Left by a read-back, and not ordered since."""
    stale: bool = False
    """Whether the host's bytes have changed since they were read."""


class PrefetchBuffer:
    """Does what orders and requests mean, as `pipellm.prefetch.news` says; knows no time.

    It has room for what is prefetched, and for read-backs on their way home. What is prefetched
    leaves a quarter free. What was read back stays as long as nobody needs the room.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        """Of the device's memory; `used` is never more."""
        self.room = nbytes * 3 // 4
        """For what is prefetched."""
        self.used = 0
        """There, under way, or on its way home."""
        self._queue: deque[list[Held]] = deque()
        self._held: dict[Range, Held] = {}
        self._kept: dict[Range, Held] = {}
        self._ranges = Ranges(1 << 20)
        self._due: list[Held] | None = None
        self._known = False  # whether nothing has changed since that was found

    def order(self, transfer: Transfer) -> list[Held]:
        """Put it at the end of the queue; returns those of its pieces that are there already."""
        there, new, held = [], [], self._held
        for key in transfer.pieces:
            known = held.get(key)
            if known is None:
                new.append(Held(key))
                continue
            known.kept = False
            self._kept.pop(key, None)
            if known.ready is not None:
                there.append(known)
        for piece in new:
            self._add(piece)
        if new:
            self._queue.append(new)
        self._known = False
        return there

    def due(self) -> list[Held] | None:
        """The pieces of the transfer that is next, if there is one and there is room for it."""
        if not self._known:
            self._due = self._next()
            self._known = True
        return self._due

    def _next(self) -> list[Held] | None:
        queue, held = self._queue, self._held
        while queue:
            queue[0] = [piece for piece in queue[0] if held.get(piece.key) is piece]
            if queue[0]:
                needed = sum([piece.key[1] for piece in queue[0]])
                return queue[0] if self._make_room(needed, self.room) else None
            queue.popleft()
        return None

    @property
    def keeps(self) -> bool:
        """Whether something that was read back stays."""
        return bool(self._kept)

    def begin(self, ready: float) -> None:
        """The transfer that is `due` begins."""
        self._known = False
        for piece in self._queue.popleft():
            piece.ready = ready
            self.used += piece.key[1]

    def stage(self, nbytes: int) -> bool:
        """Memory for a read-back, if there is any."""
        if not self._make_room(nbytes, self.nbytes):
            return False
        self.used += nbytes
        self._known = False
        return True

    def keep(self, key: Range, ready: float) -> None:
        """The read-back of this range is home, and still here."""
        if self._touching(*key):
            self.release(key[1])
            return
        piece = self._kept[key] = Held(key, ready, kept=True)
        self._add(piece)

    def request(self, address: int, nbytes: int) -> list[Held]:
        """The program asks for this range: ends what lies inside.

        Returns what was under way or there: its memory is free when it is copied (`release`).
        """
        found = []
        for piece in self._touching(address, nbytes):
            if address <= piece.key[0] and piece.key[0] + piece.key[1] <= address + nbytes:
                self._forget(piece)
                if piece.ready is not None:
                    found.append(piece)
        return found

    def release(self, nbytes: int) -> None:
        """So much is not needed any more."""
        self.used -= nbytes
        self._known = False

    def read_back(self, address: int, nbytes: int) -> None:
        """The program is going to overwrite this range: ends what it touches."""
        for piece in self._touching(address, nbytes):
            self._end(piece)

    def evict(self, keys: Iterable[Range]) -> None:
        """An order."""
        for key in keys:
            if key in self._held:
                self._end(self._held[key])

    def write(self, address: int, nbytes: int) -> None:
        """The program changes this range: what was read of it is stale."""
        for piece in self._touching(address, nbytes):
            piece.stale = piece.ready is not None

    def _make_room(self, nbytes: int, limit: int) -> bool:
        while self.used + nbytes > limit:
            if not self._kept:
                return False
            self._end(next(iter(self._kept.values())))
        return True

    def _touching(self, address: int, nbytes: int) -> list[Held]:
        exact = self._held.get((address, nbytes))
        if exact is not None:
            return [exact]
        found = self._ranges.overlapping(address, nbytes)
        return [self._held[key] for key in found] if found else []

    def _add(self, piece: Held) -> None:
        self._known = False
        self._held[piece.key] = piece
        self._ranges.add(piece.key)

    def _end(self, piece: Held) -> None:
        self._forget(piece)
        if piece.ready is not None:
            self.release(piece.key[1])

    def _forget(self, piece: Held) -> None:
        self._known = False
        del self._held[piece.key]
        self._kept.pop(piece.key, None)
        self._ranges.discard(piece.key)
