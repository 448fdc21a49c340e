"""The vocabulary of host-device copies: what every other room talks about."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

CHUNK = 1 << 20
"""Bytes of plaintext in one message of the secure channel; the last one of a copy may be shorter
(facts: the driver's block size)."""


class Direction(IntEnum):
    """Which way the bytes go, numbered as the driver's C table numbers them."""

    H2D = 0
    """Host to device: a swap-in, or a small transfer."""
    D2H = 1
    """Device to host: a swap-out, or a small transfer."""


class Transfer(NamedTuple):
    """One host-device copy of `nbytes` contiguous bytes, as the program asked for it."""

    direction: Direction
    address: int
    """The host side: source of a swap-in, destination of a swap-out."""
    nbytes: int
    """At least 1; an empty copy is no transfer."""
    device_address: int
    """The device side; tells which copies may not pass each other."""
    device: int = 0
    stream: int = 0
    blocking: bool = False
    """The program may touch the host side again as soon as the call returns. So also for an
    asynchronous copy from pageable memory, whose source CUDA has read by then."""
    ordinal: int = 0
    """Counts the copies of the program, for logs; nothing decides by it."""


def messages(nbytes: int) -> int:
    """How many messages, and so how many IVs, a copy of `nbytes` takes."""
    return -(-nbytes // CHUNK)
