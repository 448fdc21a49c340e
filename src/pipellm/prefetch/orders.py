"""What the planner for prefetching orders.

They are carried out in their order, those of a batch and batch after batch; nobody waits for them.
"""

from __future__ import annotations

from typing import NamedTuple

from pipellm.predict.ranges import Range


class Transfer(NamedTuple):
    """Bring these pieces of host memory to the prefetch buffer, all in one copy over the link.

    A piece is a buffer that the program is expected to ask for, or a part of one that is longer
    than a transfer may be: then the parts follow one another, and a request for the buffer finds
    those that are there by then and fetches the others.

    Transfers queue, in their order. One begins when no copy that the program asked for waits for
    the link, and when the prefetch buffer has room for it; until then those behind it wait too. The
    host's bytes are read when it begins. A piece that is there already, or under way, is left out
    and told as TRANSFERRED once it is there. Each piece that was ordered is told as TRANSFERRED,
    REFUSED or DROPPED, unless it ended before (see `news`).
    """

    pieces: tuple[Range, ...]
    """At least one, never two that share a byte."""

    @property
    def nbytes(self) -> int:
        """Of all of them; bounded, so that a copy that nobody foresaw waits for at most so much."""
        return sum(nbytes for _, nbytes in self.pieces)


class Evict(NamedTuple):
    """Drop these pieces: free the memory of those that are there, take those that wait for their
    transfer out of it, and drop those under way when they arrive. One that is gone is left out.
    """

    pieces: tuple[Range, ...]


Order = Transfer | Evict
