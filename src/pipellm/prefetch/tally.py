"""What became of the requests and of what was prefetched, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """Counts since the planner began."""

    hits: int = 0
    """Swap-ins that were in the prefetch buffer, or under way to it, as a whole, though some of it
    may have been seen to be stale later."""
    misses: int = 0
    """The others."""
    stale: int = 0
    """Swap-ins, or pieces of them, that were there, but whose bytes had changed since."""
    nbytes: int = 0
    """Asked for by swap-ins."""
    found_nbytes: int = 0
    """Bytes of it that were there, or under way, and had not changed."""
    transfers: int = 0
    """Ordered."""
    pieces: int = 0
    """In them."""
    transferred_nbytes: int = 0
    """Brought to the prefetch buffer."""
    in_vain_nbytes: int = 0
    """Of these, dropped before anybody asked for them."""

    @property
    def hit_rate(self) -> float:
        """Hits among all swap-ins; 0 if there were none."""
        return self.hits / max(self.hits + self.misses, 1)

    @property
    def in_vain(self) -> float:
        """The share of what was brought there that nobody asked for; 0 if there was nothing."""
        return self.in_vain_nbytes / max(self.transferred_nbytes, 1)
