"""What a policy means to the planner: a value that it reads."""

from __future__ import annotations

from dataclasses import dataclass

from pipellm.transfers import CHUNK


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules that one policy plays by."""

    ahead: bool
    """Seal predicted transfers ahead of their requests."""
    budget: int = 24 << 20
    """Bytes that may be sealed ahead at most. Whole chunks count. No more than a last-level cache
    holds: what has left it by the time it is moved costs the host twice the work (measured by
    `pipellm bench`: 1.5 cores with 256 MiB, 0.7 with 24 MiB, for the same copies)."""
    patience_ns: int = 200_000
    """How long a request may wait for others of its batch when nothing else ends the wait."""

    @property
    def budget_chunks(self) -> int:
        """The budget, in chunks."""
        return self.budget // CHUNK


SERIAL = Rules(ahead=False)
"""Every copy is sealed when it is asked for, in the order asked. Also what `off` is to the planner:
whether the channel seals at all is not its business."""

PAPER = Rules(ahead=True)
"""The paper's pipeline."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What things cost on this machine. Defaults are measured ones; the shell knows better."""

    nop_ns: int = 26_000
    """One crossing of a tiny message (facts: toll of a pageable H2D copy on an H100 NVL)."""
    seal_ns: int = 57_000
    """Sealing one of many chunks, so divided by the threads that seal (measured on one Zen 5 core:
    1 MiB at 18.5 GB/s)."""
