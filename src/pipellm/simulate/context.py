"""A device whose copies an executor orders, as native/interpreter/planned_runtime.cpp has it do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pipellm.plan.following import Following, Step
from pipellm.runtime.executor import CLEAN, LATE, STALE, Copied, Executor, Followed, Order
from pipellm.transfers import Direction, Transfer


class Context(Protocol):
    """What orders are done by, under the names that they have, and what it has to tell."""

    def speculate(
        self, id: int, address: int, nbytes: int, first: int, last: int, number: int, /
    ) -> None: ...
    def unchanged(self, id: int, /) -> bool: ...
    def whole(self, id: int, /) -> bool: ...
    def relinquish(self, id: int, /) -> None: ...
    def send(self, ordinal: int, number: int, /) -> None: ...
    def commit(self, ordinal: int, number: int, speculation: int, /) -> None: ...
    def send_nops(self, number: int, count: int, /) -> None: ...
    def receive(self, ordinal: int, number: int, /) -> None: ...
    def next_number(self, direction: Direction, /) -> int: ...
    def news(self) -> list[tuple[int, int, int]]: ...
    def landed(self) -> list[int]: ...
    def think(self) -> None:
        """The executor is asked, and the program's thread waits for the answer."""


class Ordered:
    """Takes what a program asks of a device to the executor, and its orders to the device.

    What the executor has promised is done without asking. It is told of that at once, at no cost;
    in the runtime a thread of its own tells it, some copies at a time.
    """

    def __init__(self, context: Context, executor: Executor, clock: Callable[[], int]) -> None:
        self._context = context
        self._executor = executor
        self._clock = clock
        self._following = Following()

    def request(self, *copy: *Copied) -> None:
        ordinal, direction, address, nbytes, device_address, _, _ = copy
        way = Direction(direction)
        transfer = Transfer(way, address, nbytes, device_address)
        if self._following.fits(transfer, self._context.next_number(Direction.H2D)):
            number = self._context.next_number(way)
            became = self._follow(ordinal, number, way, self._following.take(transfer))
            self._tell((*copy, number, became))
        else:
            self._ask(copy)

    def order(self, stream: int | None) -> None:
        if self._following.allowed:
            return  # nothing waits
        self._context.think()
        self._do(self._executor.order(stream))
        self._hear()

    def synchronize(self, stream: int | None) -> None:
        context, executor = self._context, self._executor
        if self._following.allowed:
            self._tell((stream,))
            return
        context.think()
        self._do(executor.clock(self._clock()))
        self._do(executor.synchronize(self._clock(), context.news(), context.landed(), (), stream))
        self._hear()

    def _ask(self, copy: Copied) -> None:
        context, executor = self._context, self._executor
        self._following.end()
        # What takes time comes first, so that the news are of the moment after it.
        context.think()
        self._do(executor.clock(self._clock()))
        now = self._clock()
        orders, candidate = executor.request(now, context.news(), context.landed(), (), *copy)
        self._do(orders)
        if candidate is not None:
            unchanged = context.unchanged(candidate)
            self._do(executor.validated(self._clock(), unchanged))
        self._hear()

    def _follow(self, ordinal: int, number: int, way: Direction, step: Step | None) -> int:
        """Does what fits; returns what became of what was sealed ahead: CLEAN, LATE or STALE."""
        context = self._context
        if way is Direction.D2H:
            context.receive(ordinal, number)
            return CLEAN
        if step is None:
            context.send(ordinal, number)
            return CLEAN
        whole = context.whole(step.speculation)
        if context.unchanged(step.speculation):
            context.commit(ordinal, number, step.speculation)
            return CLEAN if whole else LATE
        context.relinquish(step.speculation)
        context.send(ordinal, number)
        return STALE

    def _tell(self, done: Followed) -> None:
        context = self._context
        self._do(self._executor.followed(context.news(), context.landed(), [done]))
        self._hear()

    def _hear(self) -> None:
        """What is promised next."""
        promised = self._executor.promise()
        if promised is None:
            self._following.end()
        else:
            self._following.extend(Step(one, (at, n), iv) for one, at, n, iv in promised)

    def _do(self, orders: list[Order]) -> None:
        for what, *arguments in orders:
            getattr(self._context, str(what))(*arguments)
