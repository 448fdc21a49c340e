"""Does what the planner says: the thin shell between a device's driver and the pure core.

The driver calls `request` for every copy that the program asks for, `order` when something depends
on copies that were not sent yet, `synchronize` when the program waits for them. Each tells the
planner what has happened meanwhile (chunks sealed, swap-outs landed, memory freed), then what is
asked now, and does the actions that come back, in their order. Nothing here decides.

No bytes are touched under the GIL: sealing, opening and copying happen in the native context.
"""

from __future__ import annotations

import logging
import threading
import time
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
from pipellm.runtime.context import Context
from pipellm.transfers import Direction, Transfer

log = logging.getLogger("pipellm")

_TROUBLE = {1: Why.UNFIT, 2: Why.FULL}
"""What the native side says of a speculation that it could not seal (native/seal_ahead.h)."""


class Executor:
    """One device's copies under one policy. Called by the driver from any thread.

    `report` is given the tally after every request, and may be slow only if it wants to be.
    `clock` tells nanoseconds.
    """

    def __init__(
        self,
        context: Context,
        device: int,
        rules: Rules,
        costs: Costs,
        report: Callable[[Tally], None],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._context = context
        self._device = device
        self._planner = Planner(rules, costs)
        self._report = report
        self._clock = clock
        self._landing: dict[int, Transfer] = {}
        # Requests go out in the order in which they get here, whole: it is held while their bytes
        # are handed over, as a driver's own lock would be.
        self._lock = threading.Lock()

    def request(
        self,
        ordinal: int,
        direction: int,
        address: int,
        nbytes: int,
        device_address: int,
        stream: int,
        blocking: bool,
    ) -> None:
        """The program asks for a copy. Sent by the time this returns, if it is `blocking`."""
        transfer = Transfer(
            Direction(direction),
            address,
            nbytes,
            device_address,
            self._device,
            stream,
            blocking,
            ordinal,
        )
        planner = self._planner
        with self._lock:
            self._catch_up()
            candidate = planner.candidate(transfer)
            if candidate is not None and not self._context.unchanged(candidate):
                log.debug("#%d: what was sealed of it is stale", ordinal)
                candidate = None
            self._do(planner.request(self._clock(), transfer, candidate))
            self._report(planner.tally)

    def order(self, stream: int | None) -> None:
        """Something depends on the copies asked for on `stream` (None: on any)."""
        with self._lock:
            self._do(self._planner.order(stream))

    def synchronize(self, stream: int | None) -> None:
        """The program waits for the copies asked for on `stream` (None: on any)."""
        with self._lock:
            self._catch_up()
            self._do(self._planner.sync(stream))

    def expect(self, groups: Iterable[Sequence[Range]]) -> None:
        """The program says what it will copy to the device next, in this order."""
        with self._lock:
            self._catch_up()
            self._do(self._planner.expect(groups))

    def close(self) -> None:
        """The end: what was asked for goes out, and nothing is sealed ahead any more."""
        with self._lock:
            self._do(self._planner.close())
            self._report(self._planner.tally)

    def _catch_up(self) -> None:
        """Tells the planner what has happened since the last event."""
        planner, context = self._planner, self._context
        if planner.waiting:
            self._do(planner.clock(self._clock()))
        for speculation, sealed, trouble in context.news():
            planner.sealed(speculation, sealed)
            if trouble:
                self._do(planner.refused(speculation, _TROUBLE[trouble]))
        if self._landing:
            for ordinal in context.landed():
                self._do(planner.landed(self._landing.pop(ordinal)))
        for address, nbytes in context.freed():
            self._do(planner.freed(address, nbytes))

    def _do(self, actions: Iterable[Action]) -> None:
        context = self._context
        telling = log.isEnabledFor(logging.DEBUG)
        for action in actions:
            if telling:
                log.debug("%s", _in_words(action))
            match action:
                case Speculate(speculation, address, nbytes, first, last, iv):
                    context.speculate(speculation, address, nbytes, first, last, iv)
                case Commit(speculation, transfer, iv, _):
                    context.send(transfer.ordinal, iv, speculation)
                case SealNow(transfer, iv, _):
                    context.send(transfer.ordinal, iv, None)
                case Nop(iv, count):
                    context.send_nops(iv, count)
                case Relinquish(speculation, _):
                    context.relinquish(speculation)
                case Open(transfer, iv, _):
                    self._landing[transfer.ordinal] = transfer
                    context.receive(transfer.ordinal, iv)
                case Defer():
                    pass  # until another action names it


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
