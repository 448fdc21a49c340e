"""Which copies go without asking the planner: what it promised is followed while requests fit.

Pure, and small enough to be done by native code as it stands here: native/pipelined/following.h
says the same in C++, and the simulator uses this.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from pipellm.predict.ranges import Range
from pipellm.predict.sizes import SMALL
from pipellm.transfers import Direction, Transfer


class Step(NamedTuple):
    """A place on the line of IVs that was promised to the request for a buffer."""

    speculation: int
    key: Range
    iv: int


class Following:
    """The promised places, soonest first, that no request has taken yet."""

    def __init__(self) -> None:
        self._steps: deque[Step] = deque()
        self._allowed = False

    def extend(self, steps: Iterable[Step]) -> None:
        """More was promised. From now on no request waits."""
        self._steps.extend(steps)
        self._allowed = True

    def end(self) -> None:
        """Nothing is promised any more: the planner has to be asked."""
        self._steps.clear()
        self._allowed = False

    @property
    def allowed(self) -> bool:
        """Whether anything is promised, if only that no request waits."""
        return self._allowed

    def fits(self, transfer: Transfer, next_iv: int) -> bool:
        """Whether this copy may go without asking, where the next message to the device carries
        IV `next_iv`. A swap-in takes the first place then: `take` it.

        A small transfer has no place, and may not use up that of another.
        """
        if not self._allowed:
            return False
        if transfer.direction is Direction.D2H:
            return True
        first = self._steps[0] if self._steps else None
        if transfer.nbytes <= SMALL:
            return first is None or first.iv > next_iv
        return first is not None and first[1:] == ((transfer.address, transfer.nbytes), next_iv)

    def take(self, transfer: Transfer) -> Step | None:
        """The place of a copy that fits; None if it goes without one."""
        swap_in = transfer.direction is Direction.H2D and transfer.nbytes > SMALL
        return self._steps.popleft() if swap_in else None
