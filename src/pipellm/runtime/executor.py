"""Asks the planner: the thin shell between a device's driver and the pure core.

The driver tells of every copy that the program asks for (`request`), of whatever depends on copies
that were not sent yet (`order`), and of the program waiting for them (`synchronize`). Each answer
is a list of orders, to be done as they stand. Nothing here decides, and nothing here does anything:
an event comes in as plain numbers, orders go out as plain tuples, so that this runs in an
interpreter of its own (`pipellm.runtime.interpreter`), where the driver is not.

What fits what the planner has promised (`pipellm.plan.following`) is not asked about: the driver
does it, and tells of it afterwards (`followed`), before it asks anything else.

What has happened since the last event comes with the next one: `news` are (speculation, chunks
sealed, trouble), `landed` the ordinals of swap-outs that are in place, `freed` the (address, bytes)
of memory that is gone. Times are in nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pipellm.plan import (
    Action,
    Commit,
    Costs,
    Defer,
    Nop,
    Open,
    Planner,
    Relinquish,
    Rules,
    SealNow,
    Speculate,
    Tally,
    Why,
)
from pipellm.predict.ranges import Range
from pipellm.transfers import Direction, Transfer, messages

Order = tuple[str | int, ...]
"""What to do, and its arguments:

    ("speculate", speculation, address, nbytes, first chunk, last chunk, IV of chunk 0)
    ("commit", ordinal, IV, speculation)
    ("send", ordinal, IV)
    ("send_nops", IV, count)
    ("relinquish", speculation)
    ("receive", ordinal, IV)

They are those of `pipellm.plan.actions`; an ordinal says which copy.
"""

News = Iterable[tuple[int, int, int]]

Promised = tuple[int, int, int, int]
"""Speculation, address, bytes, and the IV of its first message."""

Copied = tuple[int, int, int, int, int, int, bool]
"""A copy: ordinal, direction, address, bytes, device address, stream, and whether it blocks."""

Followed = tuple[int, int, int, int, int, int, bool, int, int] | tuple[int | None]
"""What was done without asking: a copy (`Copied`), the IV of its first message, and what became of
what was sealed ahead of it (CLEAN, LATE, STALE); or a wait for a stream (None: for all)."""

CLEAN, LATE, STALE = range(3)
"""Sent from what was sealed ahead; some of it was not sealed in time; it was sealed anew, because
the memory had changed. As in native/pipelined/seal_ahead.h."""

_TROUBLE = {1: Why.UNFIT, 2: Why.FULL}
"""What native/pipelined/seal_ahead.h says of a speculation that it could not seal."""


class Executor:
    """One device's copies under one policy. Called by one thread at a time.

    `report` is given the tally after every request, and `tell`, where there is one, the story of
    every copy in words.
    """

    def __init__(
        self,
        device: int,
        rules: Rules,
        costs: Costs,
        report: Callable[[Tally], None],
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._device = device
        self._planner = Planner(rules, costs)
        self._report = report
        self._tell = tell
        self._landing: dict[int, Transfer] = {}
        self._asked: Transfer | None = None
        self._candidate: int | None = None
        self._closed = False

    def clock(self, now: int) -> list[Order]:
        """It is `now`: what has waited long enough goes out."""
        return self._orders(self._planner.clock(now)) if self._planner.waiting else []

    def request(
        self,
        now: int,
        news: News,
        landed: Iterable[int],
        freed: Iterable[Range],
        *copy: *Copied,
    ) -> tuple[list[Order], int | None]:
        """The program asks for a copy.

        With a speculation beside the orders the request is not answered yet: `validated` must
        follow, after the orders were done. One that is `blocking` is sent by the last order.
        """
        orders = self._catch_up(now, news, landed, freed)
        transfer = self._transfer(copy)
        candidate = self._planner.candidate(transfer)
        if candidate is None:
            orders += self._send(now, transfer, None)
        else:
            self._asked, self._candidate = transfer, candidate
        return orders, candidate

    def validated(self, now: int, unchanged: bool) -> list[Order]:
        """Whether the speculation that `request` named is what its memory holds now."""
        transfer, candidate = self._asked, self._candidate
        self._asked = self._candidate = None
        if transfer is None:
            raise RuntimeError("nothing was to be validated")
        if not unchanged and self._tell:
            self._tell(f"#{transfer.ordinal}: what was sealed of it is stale")
        return self._send(now, transfer, candidate if unchanged else None)

    def promise(self) -> list[Promised] | None:
        """What may be done without asking, beyond what was said before; None: nothing may.

        Whatever else is asked of the executor takes it back, but for `followed`.
        """
        steps = None if self._closed else self._planner.promise()
        if steps is None:
            return None
        return [(speculation, *key, iv) for speculation, key, iv in steps]

    def followed(self, news: News, landed: Iterable[int], done: Iterable[Followed]) -> list[Order]:
        """What was `done` without asking, in order. No order of the answer sends anything."""
        planner = self._planner
        orders = self._hear(news)
        for one in done:
            if len(one) == 1:
                orders += self._orders(planner.sync(one[0]))
                continue
            transfer, (iv, became) = self._transfer(one[:7]), one[7:]
            self._tell_of(transfer, iv, became)
            if transfer.direction is Direction.D2H:
                self._landing[transfer.ordinal] = transfer
            orders += self._orders(
                planner.followed(transfer, iv, clean=became != STALE, late=became == LATE)
            )
        orders += self._land(landed)
        self._report(planner.tally)
        return orders

    def _transfer(self, copy: Copied) -> Transfer:
        ordinal, direction, address, nbytes, device_address, stream, blocking = copy
        way = Direction(direction)
        return Transfer(
            way, address, nbytes, device_address, self._device, stream, blocking, ordinal
        )

    def _tell_of(self, transfer: Transfer, iv: int, became: int) -> None:
        """The story of a copy that was done without asking."""
        if not self._tell:
            return
        if became == STALE:
            self._tell(f"#{transfer.ordinal}: what was sealed of it is stale")
        count = messages(transfer.nbytes)
        place = self._planner.candidate(transfer)
        action: Action
        if transfer.direction is Direction.D2H:
            action = Open(transfer, iv, count)
        elif place is None or became == STALE:
            action = SealNow(transfer, iv, count)
        else:
            action = Commit(place, transfer, iv, count)
        self._tell(_in_words(action))

    def order(self, stream: int | None) -> list[Order]:
        """Something depends on the copies asked for on `stream` (None: on any)."""
        self._planner.recall()
        return self._orders(self._planner.order(stream))

    def synchronize(
        self,
        now: int,
        news: News,
        landed: Iterable[int],
        freed: Iterable[Range],
        stream: int | None,
    ) -> list[Order]:
        """The program waits for the copies asked for on `stream` (None: on any)."""
        orders = self._catch_up(now, news, landed, freed)
        return orders + self._orders(self._planner.sync(stream))

    def expect(
        self,
        now: int,
        news: News,
        landed: Iterable[int],
        freed: Iterable[Range],
        groups: Iterable[Sequence[Range]],
    ) -> list[Order]:
        """The program says what it will copy to the device next, in this order."""
        orders = self._catch_up(now, news, landed, freed)
        return orders + self._orders(self._planner.expect(groups))

    def close(self) -> list[Order]:
        """The end: what was asked for goes out, and nothing is sealed ahead any more."""
        self._closed = True
        orders = self._orders(self._planner.close())
        self._report(self._planner.tally)
        return orders

    def _send(self, now: int, transfer: Transfer, validated: int | None) -> list[Order]:
        orders = self._orders(self._planner.request(now, transfer, validated))
        self._report(self._planner.tally)
        return orders

    def _catch_up(
        self, now: int, news: News, landed: Iterable[int], freed: Iterable[Range]
    ) -> list[Order]:
        """Tells the planner what has happened since the last event."""
        planner = self._planner
        self._planner.recall()
        orders = self.clock(now) + self._hear(news) + self._land(landed)
        for address, nbytes in freed:
            orders += self._orders(planner.freed(address, nbytes))
        return orders

    def _hear(self, news: News) -> list[Order]:
        orders: list[Order] = []
        for speculation, sealed, trouble in news:
            self._planner.sealed(speculation, sealed)
            if trouble:
                orders += self._orders(self._planner.refused(speculation, _TROUBLE[trouble]))
        return orders

    def _land(self, landed: Iterable[int]) -> list[Order]:
        orders: list[Order] = []
        for ordinal in landed:
            orders += self._orders(self._planner.landed(self._landing.pop(ordinal)))
        return orders

    def _orders(self, actions: Iterable[Action]) -> list[Order]:
        orders: list[Order] = []
        for action in actions:
            if self._tell:
                self._tell(_in_words(action))
            match action:
                case Speculate(speculation, address, nbytes, first, last, iv):
                    orders.append(("speculate", speculation, address, nbytes, first, last, iv))
                case Commit(speculation, transfer, iv, _):
                    orders.append(("commit", transfer.ordinal, iv, speculation))
                case SealNow(transfer, iv, _):
                    orders.append(("send", transfer.ordinal, iv))
                case Nop(iv, count):
                    orders.append(("send_nops", iv, count))
                case Relinquish(speculation, _):
                    orders.append(("relinquish", speculation))
                case Open(transfer, iv, _):
                    self._landing[transfer.ordinal] = transfer
                    orders.append(("receive", transfer.ordinal, iv))
                case Defer():
                    pass  # until another action names it
        return orders


def _in_words(action: Action) -> str:
    match action:
        case Speculate(speculation, address, nbytes, first, last, iv):
            return (
                f"seal ahead: speculation {speculation}, chunks {first} to {last - 1} of "
                f"{nbytes:,} bytes at {address:#x}, from IV {iv + first} on"
            )
        case Commit(speculation, transfer, iv, count):
            return (
                f"#{transfer.ordinal}: {transfer.nbytes:,} bytes from {transfer.address:#x}: sent "
                f"from speculation {speculation}, {count} messages from IV {iv} on"
            )
        case SealNow(transfer, iv, count):
            return (
                f"#{transfer.ordinal}: {transfer.nbytes:,} bytes from {transfer.address:#x}: "
                f"sealed now, {count} messages from IV {iv} on"
            )
        case Nop(iv, count):
            return f"{count} NOPs from IV {iv} on"
        case Defer(transfer):
            return f"#{transfer.ordinal}: waits for its turn"
        case Relinquish(speculation, why):
            return f"speculation {speculation} relinquished: {why.value}"
        case Open(transfer, iv, count):
            return (
                f"#{transfer.ordinal}: {transfer.nbytes:,} bytes to {transfer.address:#x}: "
                f"opened as they come, {count} messages from IV {iv} on"
            )
