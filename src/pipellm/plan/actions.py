"""What the planner tells its shell to do.

The order of the actions is the order to do them in. Those that send (Commit, SealNow, Nop) carry
IVs without gaps and without overlap, in ascending order, from the first to the last action that a
planner ever returns; the shell hands them to the copy engine in exactly this order.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pipellm.transfers import Transfer


class Why(Enum):
    """Why a speculation was relinquished, or refused by the shell."""

    STALE = "stale"
    """Its plaintext has changed, or could not be shown not to have."""
    BEHIND = "behind"
    """Other messages have used up its IVs."""
    SKIPPED = "skipped"
    """A later one was due; its IVs went to NOPs."""
    GAP = "gap"
    """The gap before a later one was dearer to close than to seal anew."""
    UNFORESEEN = "unforeseen"
    """The prediction has changed."""
    FREED = "freed"
    """Its memory is gone."""
    FAILED = "failed"
    """A worker died or gave up."""
    FULL = "full"
    """The arena had no room."""
    UNFIT = "unfit"
    """Its memory cannot be watched: shared, aliased, file-backed."""
    ROTATED = "rotated"
    """The key has changed."""
    CLOSED = "closed"
    """The end."""


@dataclass(frozen=True, slots=True)
class Speculate:
    """Watch this memory, then seal chunks [first, last) of it into the private arena.

    Chunk i is sealed under IV `iv` + i. A speculation begins with its first Speculate, may get more
    chunks by further ones, and ends with exactly one Commit or Relinquish.
    """

    speculation: int
    address: int
    nbytes: int
    """Of the whole transfer."""
    first: int
    last: int
    iv: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Send `transfer` from the ciphertexts of a speculation.

    Chunks that are not sealed yet, or were never asked for, are waited for or sealed now, under the
    same IVs: the shell chooses what is quicker.
    """

    speculation: int
    transfer: Transfer
    iv: int
    count: int


@dataclass(frozen=True, slots=True)
class SealNow:
    """Seal and send `transfer`, its chunk i under IV `iv` + i."""

    transfer: Transfer
    iv: int
    count: int


@dataclass(frozen=True, slots=True)
class Nop:
    """Send `count` one-byte messages of no meaning, from `iv` on."""

    iv: int
    count: int


@dataclass(frozen=True, slots=True)
class Defer:
    """Nothing is to be sent for `transfer` yet; a Commit or SealNow of it will follow.

    Until then its source must stay as it is: only transfers that are not `blocking` are deferred.
    """

    transfer: Transfer


@dataclass(frozen=True, slots=True)
class Relinquish:
    """Wipe all ciphertexts of a speculation. Chunks still being sealed are wiped when done."""

    speculation: int
    why: Why


@dataclass(frozen=True, slots=True)
class Open:
    """Receive `transfer` from the device: `count` messages, from IV `iv` on in its direction."""

    transfer: Transfer
    iv: int
    count: int


Action = Speculate | Commit | SealNow | Nop | Defer | Relinquish | Open
