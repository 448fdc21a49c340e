"""What became of the requests, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Counts since the planner began."""

    hits: int = 0
    """Swap-ins that were sent from a speculation."""
    misses: int = 0
    """Swap-ins that were sealed when they were asked for, or even later."""
    late: int = 0
    """Swap-ins whose chunks were not all sealed yet when asked for."""
    by_pattern: Counter[str] = field(default_factory=Counter)
    """Hits, by the name of the pattern that foresaw them."""
    nops: int = 0
    reorders: int = 0
    """Requests that waited for others of their batch."""
    relinquishes: int = 0
    """Speculations that were dropped."""
    stale: int = 0
    """Those of them whose plaintext had changed."""
    sealed_ahead_chunks: int = 0
    """Chunks that were asked for ahead."""
    wasted_chunks: int = 0
    """Those of them that were dropped."""

    @property
    def hit_rate(self) -> float:
        """Hits among all swap-ins; 0 if there were none."""
        return self.hits / max(self.hits + self.misses, 1)
