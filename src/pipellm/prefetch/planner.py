"""The planner for prefetching of one device: news in, orders out.

Theory of operation
===================

The predictor foresees a list of swap-ins, the *forecast*. The planner keeps the first part of it
covered by *pieces*: those that are in the prefetch buffer, then a *queue* of those whose transfers
are ordered and wait for the link or for room.

    asked for | in the prefetch buffer     | queue: ordered      gathered | not yet        forecast
    ----------+----------------------------+------------------------------+-------------------->
              | [there][there][there] ...  | [      ] [      ]   [   ..   | ^ cursor

What comes later than foreseen is still there, and what comes sooner is fetched when it is asked
for: so unlike the IVs of `pipellm.plan`, the exact order costs nothing. A few rules:

1.  The queue is four transfers long: a request frees the memory of what it finds, and then the next
    transfer begins without the planner, which may be late by so much. A longer one would be ordered
    in vain where a program asks faster than the link carries.
2.  Pieces are gathered into transfers of at most `transfer` bytes; longer buffers are cut into
    parts of that size. A transfer that is not full waits for more while enough is ahead of it.
3.  After a request that was not foreseen, after read-backs and frees, the forecast is made anew. As
    far as the queue is still in its order it stands; from the first difference on it is taken back
    and ordered anew.
4.  What is in the buffer is evicted when its room is needed by what comes sooner, and not before:
    it may still come.
5.  What is on its way to host memory is not ordered, nor what comes after it, until it has landed.
    What cannot be read ahead, or was stale when it was asked for, is passed over (`trust`).
6.  What is prefetched in vain is counted, and bounded (`worth`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipellm.plan.trust import Trust
from pipellm.predict import Predictor
from pipellm.predict.ranges import Range
from pipellm.prefetch.forecast import Forecast, parts
from pipellm.prefetch.homeward import Homeward
from pipellm.prefetch.news import News, What
from pipellm.prefetch.orders import Evict, Order, Transfer
from pipellm.prefetch.pieces import Piece, Pieces, aligned
from pipellm.prefetch.tally import Tally
from pipellm.prefetch.worth import Worth
from pipellm.transfers import Direction
from pipellm.transfers import Transfer as Copy

TRANSFER = 8 << 20
"""Bytes of one transfer at most."""
_QUEUE = 4
"""So many transfers wait or are under way at most: what goes on while nobody listens."""


_MISS, _HIT, _STALE = What.MISS, What.HIT, What.STALE  # slow to look up each time
_H2D, _D2H = Direction.H2D, Direction.D2H


class Planner:
    """Plans what one device is sent before it asks."""

    def __init__(self, transfer: int = TRANSFER) -> None:
        """`transfer`: bytes of one transfer at most, which is what an unforeseen copy waits for."""
        self.tally = Tally()
        self._transfer = transfer
        self._predictor = Predictor()
        self._forecast = Forecast(self._predictor, transfer)
        self._trust = Trust()
        self._homeward = Homeward()
        self._worth = Worth(transfer)
        self._pieces = Pieces()
        self._gathered: dict[Range, Piece] = {}
        self._gathered_nbytes = 0
        self._room = 0
        self._orders: list[Order] = []
        self._departed = False  # the forecast is to be made anew
        self._hurry = False  # what is gathered may be what comes next
        self._storing = False  # in a batch of read-backs: each may change what returns next
        self._unsorted = 0  # copies since the buffer was last gone through for what is not expected
        self._hear = {
            What.READ_BACK: self._read_back,
            What.SYNCHRONIZE: self._synchronize,
            What.TRANSFERRED: self._transferred,
            What.REFUSED: self._refused,
            What.DROPPED: self._dropped,
            What.LANDED: self._landed,
            What.FREED: self._freed,
            What.ROOM: self._set_room,
            What.CHANGED: self._changed,
        }

    def tell(self, news: Iterable[News]) -> list[Order]:
        """All that happened since the last time; returns what to do."""
        for what, address, nbytes, stream, found in news:
            if what <= _MISS:
                self._requested(what, address, nbytes, stream, found)
            else:
                self._hear[what](address, nbytes)
        return self._plan()

    def expect(self, groups: Iterable[Sequence[Range]]) -> list[Order]:
        """The program says what it will swap in next, in this order, group by group.

        A hint, in the place of the last one: nothing but what is prefetched depends on it.
        """
        self._predictor.expect(groups)
        self._departed = True
        self._storing = False  # whatever was to be swapped out before that has been
        return self._plan()

    # News --------------------------------------------------------------------------------------

    def _requested(self, what: int, address: int, nbytes: int, stream: int, found: int) -> None:
        if not self._predictor.small(nbytes):
            key = (address, nbytes)
            seen = self._predictor.observe(Copy(_H2D, address, nbytes, address, 0, stream))
            self._storing = False
            self._unsorted += 1
            self._departed |= not self._forecast.asked(key) or seen.foreseen is None
            self._judge(what, key, found)
        there = queued = 0
        for piece in self._pieces.touching(address, nbytes):
            if address <= piece.key[0] and piece.key[0] + piece.nbytes <= address + nbytes:
                if piece.there:
                    there += piece.nbytes
                elif piece.ordered:
                    queued += piece.nbytes
                self._end(piece)
        if there or queued:
            under_way = min(max(found - there, 0), queued)
            self.tally.transferred_nbytes += under_way
            self._worth.returned(queued - under_way)
            if not found:
                self.tally.in_vain_nbytes += there

    def _judge(self, what: int, key: Range, found: int) -> None:
        """What a swap-in says of the guesses."""
        tally = self.tally
        tally.nbytes += key[1]
        tally.found_nbytes += found
        if found >= key[1]:
            tally.hits += 1
        else:
            tally.misses += 1
        self._worth.swap_in()
        if what == _HIT:
            self._worth.used(found)
            self._trust.found(key)
        elif what == _STALE:
            tally.stale += 1
            self._trust.stale(key)
        else:
            self._trust.missed(key)

    def _changed(self, address: int, nbytes: int) -> None:
        self.tally.stale += 1
        self.tally.found_nbytes -= nbytes
        self.tally.in_vain_nbytes += nbytes
        self._worth.changed(nbytes)
        self._trust.stale((address, nbytes))

    def _read_back(self, address: int, nbytes: int) -> None:
        seen = self._predictor.observe(Copy(_D2H, address, nbytes, address))
        self._homeward.expect((address, nbytes))
        if seen.swap:
            self._storing = self._departed = True
            self._unsorted += 1
        for piece in self._pieces.touching(address, nbytes):
            self._waste(piece)

    def _synchronize(self, address: int, nbytes: int) -> None:
        self._storing = False
        self._predictor.sync()

    def _transferred(self, address: int, nbytes: int) -> None:
        piece = self._pieces.get((address, nbytes))
        if piece is not None and piece.ordered and not piece.there:
            self._pieces.arrived(piece)
            self.tally.transferred_nbytes += nbytes

    def _refused(self, address: int, nbytes: int) -> None:
        piece = self._pieces.get((address, nbytes))
        if piece is not None and piece.ordered:
            self._trust.unfit(piece.buffer)
            self._waste(piece)

    def _dropped(self, address: int, nbytes: int) -> None:
        piece = self._pieces.get((address, nbytes))
        if piece is not None and piece.ordered:
            self._waste(piece)

    def _landed(self, address: int, nbytes: int) -> None:
        self._homeward.landed((address, nbytes))

    def _freed(self, address: int, nbytes: int) -> None:
        for piece in self._pieces.touching(address, nbytes):
            self._waste(piece)
        self._trust.freed(address, nbytes)
        self._predictor.forget(address, nbytes)
        self._departed = True

    def _set_room(self, address: int, nbytes: int) -> None:
        if nbytes < self._room:
            self._evict(self._pieces.queue())
        self._room = nbytes
        self._worth.most = max(self._worth.most, 4 * nbytes)
        self._departed = True

    # Orders ------------------------------------------------------------------------------------

    def _plan(self) -> list[Order]:
        """Bring the orders up to date and hand them out."""
        if not self._storing and self._room >= self._transfer:
            if self._departed:
                self._departed, self._hurry = False, True
                self._forecast.renew()
                self._keep_queue()
            self._walk()
            if self._make_room():
                self._walk()
        orders, self._orders = self._orders, []
        return orders

    def _keep_queue(self) -> None:
        """Take back the queue from where it is in another order than the forecast."""
        queue = self._pieces.queue()
        kept = 0
        for buffer in self._forecast.buffers if queue else ():
            for part in parts(buffer, self._transfer):
                piece = self._pieces.get(part)
                if piece is None:
                    if not self._may_order(part, buffer):
                        break
                elif piece.there:
                    continue
                elif piece is queue[kept]:
                    kept += 1
                    if kept == len(queue):
                        return
                    continue
                self._evict(queue[kept:])
                return
        if self._forecast.complete:
            self._evict(queue[kept:])

    def _may_order(self, part: Range, buffer: Range) -> bool:
        return (
            self._trust.allows(buffer)
            and not self._homeward.covers(part)
            and not self._pieces.touching(*part)
        )

    def _walk(self) -> None:
        """Order what the forecast holds, as far as there is room, credit and knowledge."""
        forecast, pieces = self._forecast, self._pieces
        while (found := forecast.part()) is not None:
            part, buffer = found
            if pieces.get(part) is None:
                if not self._trust.allows(buffer):
                    forecast.skip()
                    continue
                if self._homeward.covers(part):
                    break
                if not pieces.touching(*part) and not self._gather(part, buffer):
                    break
            forecast.advance()
        waiting = pieces.queued_nbytes - self._gathered_nbytes
        ahead = pieces.nbytes - self._gathered_nbytes
        enough = min(_QUEUE * self._transfer, self._room // 2)
        if waiting < self._transfer and (self._hurry or ahead < enough):
            self._send()
        self._hurry &= bool(self._gathered)

    def _gather(self, part: Range, buffer: Range) -> bool:
        """Put a piece at the end of the queue; returns whether there was room for it."""
        nbytes, pieces, transfer = aligned(part[1]), self._pieces, self._transfer
        lead = _QUEUE * transfer
        if self._gathered_nbytes + nbytes > transfer:
            self._send()
        if (
            pieces.queued_nbytes + nbytes > lead
            or self._gathered_nbytes + nbytes > self._worth.credit
        ):
            return False
        piece = Piece(part, buffer)
        pieces.add(piece)
        self._gathered[part] = piece
        self._gathered_nbytes += nbytes
        return True

    def _send(self) -> None:
        """Order the transfer of what was gathered."""
        if self._gathered:
            for piece in self._gathered.values():
                piece.ordered = True
            self._orders.append(Transfer(tuple(self._gathered)))
            self.tally.transfers += 1
            self.tally.pieces += len(self._gathered)
            self._worth.ordered(self._gathered_nbytes)
            self._gathered.clear()
            self._gathered_nbytes = 0

    def _make_room(self) -> bool:
        """Where the queue needs room, evict what comes later, or is not expected at all.

        Returns whether anything was. Not more often than the buffer's pieces are used up, so that
        it costs each of them little.
        """
        pieces, room = self._pieces, self._room
        if pieces.nbytes <= room or 4 * self._unsorted < len(pieces):
            return False
        self._unsorted = 0
        soon = self._forecast.soon(room, 2 * len(pieces))
        queued = sum(piece.nbytes for piece in pieces.queue() if piece.key in soon)
        excess = pieces.nbytes - pieces.queued_nbytes + queued - room
        unwanted = []
        for piece in pieces.there():
            if excess <= 0:
                break
            if piece.key not in soon:
                unwanted.append(piece)
                excess -= piece.nbytes
        self._evict(unwanted)
        return bool(unwanted)

    def _evict(self, unwanted: Sequence[Piece]) -> None:
        """Take pieces out of the buffer, or back from the queue."""
        ordered = tuple(piece.key for piece in unwanted if piece.ordered)
        if ordered:
            self._orders.append(Evict(ordered))
        for piece in unwanted:
            self._waste(piece)

    def _waste(self, piece: Piece) -> None:
        """A piece ends that nobody asked for."""
        if piece.there:
            self.tally.in_vain_nbytes += piece.nbytes
        elif piece.ordered:
            self._worth.returned(piece.nbytes)
        self._end(piece)

    def _end(self, piece: Piece) -> None:
        if not piece.ordered:
            del self._gathered[piece.key]
            self._gathered_nbytes -= piece.room
        self._pieces.end(piece)
