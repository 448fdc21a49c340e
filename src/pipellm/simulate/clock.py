"""Virtual time."""

from __future__ import annotations


class Clock:
    """Seconds since the program began, as its host thread lives them. Never runs backward."""

    def __init__(self) -> None:
        self.now = 0.0

    def wait_until(self, time: float) -> None:
        """Returns at once if it has passed."""
        if time > self.now:
            self.now = time

    def spend(self, seconds: float) -> None:
        """The thread is busy."""
        self.now += seconds

    def nanoseconds(self) -> int:
        """As the planner counts."""
        return int(self.now * 1e9)
