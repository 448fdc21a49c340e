"""The pieces in the prefetch buffer and those on the list for it: the planner's picture."""

from __future__ import annotations

from pipellm.predict.ranges import Range, Ranges

_MOST = 1 << 20  # pieces; more than any buffer holds of what is large enough to be a swap
_ALIGNMENT = 512  # of device memory


def aligned(nbytes: int) -> int:
    """Bytes of device memory that a piece takes up."""
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


class Piece:
    """A buffer, or a part of one.

    gathered --Transfer--> ordered --TRANSFERRED--> there
        \\_____________________|______________________\\___ ended: asked for, evicted, gone
    """

    __slots__ = ("buffer", "key", "nbytes", "ordered", "room", "there")

    def __init__(self, key: Range, buffer: Range) -> None:
        self.key = key
        self.nbytes = key[1]
        self.room = aligned(self.nbytes)
        """Bytes of device memory."""
        self.buffer = buffer
        """What the program is expected to ask for."""
        self.ordered = self.there = False


class Pieces:
    """All that have not ended; no two share a byte."""

    def __init__(self) -> None:
        self.nbytes = 0
        """Of device memory, for all of them."""
        self.queued_nbytes = 0
        """Of those that are not there yet."""
        self._alive: dict[Range, Piece] = {}
        self._queue: dict[Range, Piece] = {}
        self._ranges = Ranges(_MOST)

    def __len__(self) -> int:
        return len(self._alive)

    def there(self) -> list[Piece]:
        """Those that are there, the one gathered first comes first."""
        return [piece for piece in self._alive.values() if piece.there]

    def queue(self) -> list[Piece]:
        """Those that are not there yet, in the order of their transfers; the gathered come last."""
        return list(self._queue.values())

    def get(self, key: Range) -> Piece | None:
        """The piece of exactly this range."""
        return self._alive.get(key)

    def touching(self, address: int, nbytes: int) -> list[Piece]:
        """Those that share a byte with this range."""
        exact = self._alive.get((address, nbytes))
        if exact is not None:
            return [exact]
        found = self._ranges.overlapping(address, nbytes)
        return [self._alive[key] for key in found] if found else []

    def add(self, piece: Piece) -> None:
        """It is gathered."""
        key = piece.key
        self._alive[key] = self._queue[key] = piece
        self._ranges.add(key)
        self.nbytes += piece.room
        self.queued_nbytes += piece.room

    def arrived(self, piece: Piece) -> None:
        """It is there."""
        piece.there = True
        del self._queue[piece.key]
        self.queued_nbytes -= piece.room

    def end(self, piece: Piece) -> None:
        """It is gone, or will not be transferred."""
        key = piece.key
        del self._alive[key]
        self._ranges.discard(key)
        self.nbytes -= piece.room
        if not piece.there:
            del self._queue[key]
            self.queued_nbytes -= piece.room
