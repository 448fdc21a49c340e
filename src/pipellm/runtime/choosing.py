"""What policy `auto` comes to for a device."""

from __future__ import annotations

from dataclasses import dataclass

from pipellm.prefetch import TRANSFER
from pipellm.runtime.policy import POLICIES, Policy

LEAST = 4 * TRANSFER
"""Bytes of the smallest prefetch buffer that is of use: it has four segments."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A policy, and why it was taken, in words."""

    policy: Policy
    why: str


def choose(buffer: int, no_planner: str | None) -> Choice:
    """Prefetch where there is room, else seal ahead, else leave it to the driver and the provider.

    `buffer`: bytes that the prefetch buffer may take of the device's memory; `no_planner`: why no
    planner can run in this process, None if one can.
    """
    if no_planner is not None:
        return Choice(POLICIES["serial"], f"no planner can run here: {no_planner}")
    if buffer < LEAST:
        return Choice(
            POLICIES["pipelined"],
            f"a prefetch buffer of {LEAST >> 20} MiB is too large for the device's memory, or for "
            "this machine's; the channel is open",
        )
    return Choice(
        POLICIES["prefetch"], f"there is room for a prefetch buffer of {buffer >> 20} MiB"
    )
