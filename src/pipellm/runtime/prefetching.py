"""Asks the planner for prefetching: the thin shell between native code and the pure core.

Native code tells what the layer saw, in batches, on a thread of its own
(native/interpreter/planner_thread.h). Nothing here decides, and nothing here does anything: news
come in as plain tuples, orders go out as plain tuples, so that this runs in an interpreter of its
own (`pipellm.runtime.interpreter`), where the driver is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pipellm.predict.ranges import Range
from pipellm.prefetch import Evict, News, Order, Planner, Tally
from pipellm.runtime.shared_counters import SharedCounters

PREFETCHING = (
    "prefetch_hits",
    "prefetch_misses",
    "prefetch_stale",
    "prefetch_asked_bytes",
    "prefetch_found_bytes",
    "prefetch_transfers",
    "prefetch_pieces",
    "prefetch_transferred_bytes",
    "prefetch_in_vain_bytes",
    "prefetch_buffer_bytes",
)
"""Names of the counters, in order."""

PlainOrder = tuple[int, tuple[Range, ...]]
"""0 to transfer these pieces, 1 to evict them (native/prefetch/orders.h)."""


class Prefetcher:
    """One device's planner. Called by one thread at a time.

    `counters` are int64 that several planners share, PREFETCHING first; `tell`, where there is one,
    is given the story of every transfer in words.
    """

    def __init__(
        self,
        device: int,
        counters: memoryview,
        tell: Callable[[str], None] | None,
        transfer: int,
    ) -> None:
        self._device = device
        self._counters = SharedCounters(counters, len(PREFETCHING))
        self._tell = tell
        self._most_held = 0
        self._planner = Planner(transfer)

    def tell(self, news: Iterable[News], held: int) -> list[PlainOrder]:
        """What happened since the last time, and how large the prefetch buffer is, in bytes."""
        orders = self._planner.tell(news)
        self._most_held = max(self._most_held, held)
        self._report(self._planner.tally)
        return self._plain(orders)

    def expect(self, groups: Iterable[Sequence[Range]]) -> list[PlainOrder]:
        """The program says what it will copy to the device next, in this order."""
        return self._plain(self._planner.expect(groups))

    def _plain(self, orders: Iterable[Order]) -> list[PlainOrder]:
        plain = []
        for order in orders:
            if self._tell:
                self._tell(f"GPU {self._device}: {_in_words(order)}")
            plain.append((int(isinstance(order, Evict)), order.pieces))
        return plain

    def _report(self, tally: Tally) -> None:
        self._counters.set(
            [
                tally.hits,
                tally.misses,
                tally.stale,
                tally.nbytes,
                tally.found_nbytes,
                tally.transfers,
                tally.pieces,
                tally.transferred_nbytes,
                tally.in_vain_nbytes,
                self._most_held,
            ]
        )


def _in_words(order: Order) -> str:
    nbytes = sum(nbytes for _, nbytes in order.pieces)
    first, _ = order.pieces[0]
    what = "evict" if isinstance(order, Evict) else "prefetch"
    pieces = "1 piece" if len(order.pieces) == 1 else f"{len(order.pieces)} pieces"
    return f"{what} {pieces}, {nbytes:,} bytes, from {first:#x} on"
