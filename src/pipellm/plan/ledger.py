"""The IV ledger: which IV the next message of one direction carries."""

from __future__ import annotations

LAST = (1 << 32) - 1
"""The message counter has 32 bits and never wraps (facts: the protocol)."""


class IVError(Exception):
    """An IV was about to be skipped, used twice or counted past the last. Nothing was sent."""


class Ledger:
    """Counts the messages of one direction.

    `next` is the IV before masking of the next message: the counter is incremented before each
    message, so the first one carries 1.
    """

    __slots__ = ("_last", "next")

    def __init__(self, last: int = LAST) -> None:
        self.next = 1
        self._last = last

    @property
    def remaining(self) -> int:
        """How many messages this key has left."""
        return self._last - self.next + 1

    def send(self, iv: int, count: int) -> None:
        """`count` messages leave, the first under `iv`. Raises IVError where that breaks order."""
        if iv != self.next:
            raise IVError(f"the next message carries IV {self.next}, not {iv}")
        if count > self.remaining:
            raise IVError(f"{count} messages, but only {self.remaining} IVs left under this key")
        self.next += count

    def restart(self) -> None:
        """The key was rotated: counting begins anew."""
        self.next = 1
