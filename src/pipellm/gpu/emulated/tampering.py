"""An attack on the bus, asked for by the user: to see that it is noticed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipellm.errors import UserError
from pipellm.transfers import Direction

LAST_MESSAGE = 2**32 - 1
"""Message numbers have 32 bits, and start at 1."""


@dataclass(frozen=True, slots=True)
class Tampering:
    """One bit of one message is flipped while the message lies in the bounce buffer."""

    direction: Direction
    number: int
    """Which message, as the channel counts those of its direction: from 1, of 1 MiB at most."""

    @staticmethod
    def parse(text: str) -> Tampering:
        """`h2d:N` or `d2h:N`, as a user writes it. Raises UserError."""
        match = re.fullmatch(r"(h2d|d2h):([0-9]{1,10})", text.lower())
        if match is None or not 1 <= int(match[2]) <= LAST_MESSAGE:
            raise UserError(
                f"tamper {text!r}: expected a direction and the number of a message, as in h2d:100 "
                "or d2h:1"
            )
        return Tampering(Direction[match[1].upper()], int(match[2]))

    def __str__(self) -> str:
        return f"{self.direction.name.lower()}:{self.number}"
