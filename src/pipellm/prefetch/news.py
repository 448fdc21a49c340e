"""What the planner for prefetching is told, afterwards and in batches.

Who tells it (the native layer, the simulator) goes on meanwhile, so news may be late and orders
too: whoever carries orders out is the authority on what the prefetch buffer holds, and copies are
right whatever the planner orders or fails to order. News come in the order in which things
happened.

What ends a piece in the buffer, or one that was ordered and is not there yet, is a rule that both
sides follow, so that most of it need not be told:

- A request ends every piece that lies wholly inside it, found or not: its memory is free again, and
  a transfer of it that has not begun is not begun any more. A piece that reaches beyond the request
  stays.
- A read-back ends every piece that shares a byte with it.
- `STALE`, `REFUSED`, `DROPPED` and an order `Evict` end the pieces that they name.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class What(IntEnum):
    """What happened. Numbered as native/prefetch/orders.h numbers its news."""

    HIT = 0
    """Asked for (host to device), and `found` bytes of it were in the prefetch buffer, or under way
    to it. A large buffer may be there in part."""
    STALE = 1
    """Asked for, and it was there, but the host's bytes had changed since: copied as a miss."""
    MISS = 2
    """Asked for, and nothing of it was there."""
    READ_BACK = 3
    """A copy to the host was asked for (device to host)."""
    SYNCHRONIZE = 4
    """The program waited for its copies: a batch of them ends. No range."""
    TRANSFERRED = 5
    """A piece that was ordered is in the prefetch buffer."""
    REFUSED = 6
    """A piece that was ordered cannot be read ahead: its memory is shared, or gone, or the program
    forbade to read it. It is not ordered again before its buffer is freed."""
    DROPPED = 7
    """A piece is gone for another reason than an order or a request: its memory was written or
    freed, or device memory was short."""
    LANDED = 8
    """All bytes of a read-back are in host memory. Until then nothing of it is prefetched."""
    FREED = 9
    """Host memory is freed, or becomes something else: what comes there next is another buffer."""
    ROOM = 10
    """The prefetch buffer may hold `nbytes` from now on; 0 while there is no room for it at all.
    What has to go for that is told as DROPPED, before."""
    CHANGED = 11
    """Bytes that a HIT found had changed since, which was seen only now: they were copied as a miss
    after all."""


class News(NamedTuple):
    """One thing that happened. A plain tuple of the same fields does as well."""

    what: What
    address: int = 0
    """Of the host's memory, as everywhere here."""
    nbytes: int = 0
    stream: int = 0
    """The program's, of a request."""
    found: int = 0
    """Bytes of a HIT that were there; all other bytes of it were copied as a miss."""
