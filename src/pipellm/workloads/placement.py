"""Where a workload's buffers lie: addresses that tell them apart, given out one after the other."""

from __future__ import annotations

_HOST, _DEVICE = 1 << 44, 1 << 45
_PAGE = 4096


class Placement:
    """Gives out addresses of one memory, in whole pages, none twice."""

    def __init__(self, first: int) -> None:
        self._next = first

    @staticmethod
    def host() -> Placement:
        """Of a host's memory."""
        return Placement(_HOST)

    @staticmethod
    def device() -> Placement:
        """Of a device's memory: no address is one of the host's."""
        return Placement(_DEVICE)

    def place(self, nbytes: int) -> int:
        """The address of a new buffer."""
        address = self._next
        self._next += -(-nbytes // _PAGE) * _PAGE
        return address
