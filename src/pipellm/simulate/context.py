"""A device whose copies an executor orders, as native/interpreter/planned_runtime.cpp has it do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pipellm.runtime.executor import Executor, Order


class Context(Protocol):
    """What orders are done by, under the names that they have, and what it has to tell."""

    def speculate(
        self, id: int, address: int, nbytes: int, first: int, last: int, number: int, /
    ) -> None: ...
    def unchanged(self, id: int, /) -> bool: ...
    def relinquish(self, id: int, /) -> None: ...
    def send(self, ordinal: int, number: int, /) -> None: ...
    def commit(self, ordinal: int, number: int, speculation: int, /) -> None: ...
    def send_nops(self, number: int, count: int, /) -> None: ...
    def receive(self, ordinal: int, number: int, /) -> None: ...
    def news(self) -> list[tuple[int, int, int]]: ...
    def landed(self) -> list[int]: ...


class Ordered:
    """Takes what a program asks of a device to the executor, and its orders to the device."""

    def __init__(self, context: Context, executor: Executor, clock: Callable[[], int]) -> None:
        self._context = context
        self._executor = executor
        self._clock = clock

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
        context, executor = self._context, self._executor
        # What takes time comes first, so that the news are of the moment after it.
        self._do(executor.clock(self._clock()))
        now = self._clock()
        orders, candidate = executor.request(
            now,
            context.news(),
            context.landed(),
            (),
            ordinal,
            direction,
            address,
            nbytes,
            device_address,
            stream,
            blocking,
        )
        self._do(orders)
        if candidate is not None:
            unchanged = context.unchanged(candidate)
            self._do(executor.validated(self._clock(), unchanged))

    def order(self, stream: int | None) -> None:
        self._do(self._executor.order(stream))

    def synchronize(self, stream: int | None) -> None:
        context, executor = self._context, self._executor
        self._do(executor.clock(self._clock()))
        self._do(executor.synchronize(self._clock(), context.news(), context.landed(), (), stream))

    def _do(self, orders: list[Order]) -> None:
        for what, *arguments in orders:
            getattr(self._context, str(what))(*arguments)
