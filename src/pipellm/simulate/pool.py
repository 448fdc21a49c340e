"""The worker pool as a fluid: one queue that all workers together empty at one rate.

What a speculation has sealed by a time follows from the queue alone, so a transfer costs the
simulation the same however many chunks it has. With one worker that is exact to the byte; with more
it is early by less than a chunk where the queue was empty.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Job:
    """What the pool was asked to seal of one speculation."""

    id: int
    asked: int = 0
    sealed: float = 0.0
    """Bytes from the start on."""
    live: bool = True


class Pool:
    """Bytes to seal, in the order asked. Times are absolute and never fall from call to call."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.pieces = 0
        """How many it has been given."""
        self._at = 0.0
        self._urgent = 0.0  # seconds of work that goes before the queue
        self._queue: deque[tuple[Job, int, int]] = deque()  # each: bytes, and up to where
        self._done = 0.0  # seconds already spent on the first piece
        self._jobs: dict[int, Job] = {}
        self._news: dict[int, Job] = {}

    def seal(self, now: float, speculation: int, nbytes: int) -> None:
        """The next bytes of a speculation."""
        self.advance(now)
        job = self._jobs.get(speculation)
        if job is None:
            job = self._jobs[speculation] = Job(speculation)
        job.asked += nbytes
        self.pieces += 1
        self._queue.append((job, nbytes, job.asked))

    def get(self, now: float, speculation: int) -> Job | None:
        """A speculation that was neither taken nor dropped, as far as it is sealed now."""
        self.advance(now)
        return self._jobs.get(speculation)

    def interrupt(self, now: float, seconds: float) -> None:
        """All workers do something else first, for so long."""
        self.advance(now)
        self.pieces += 1
        self._urgent += seconds

    def remove(self, now: float, speculation: int) -> Job | None:
        """Takes a speculation out of the queue; None if there is no such."""
        self.advance(now)
        job = self._jobs.pop(speculation, None)
        if job is not None:
            self._news.pop(speculation, None)
            job.live = False
        return job

    def news(self, now: float) -> list[Job]:
        """Speculations of which more is sealed than at the last call."""
        self.advance(now)
        if not self._news:
            return []
        news = list(self._news.values())
        self._news.clear()
        return news

    def advance(self, now: float) -> None:
        """Work until `now`."""
        left = now - self._at
        if left <= 0:
            left = 0.0
        else:
            self._at = now
        if self._urgent:
            spent = min(self._urgent, left)
            self._urgent -= spent
            left -= spent
            if self._urgent:
                return
        queue = self._queue
        while queue:
            job, nbytes, end = queue[0]
            if not job.live:
                queue.popleft()
                self._done = 0.0
                continue
            needs = nbytes / self.rate - self._done
            if needs > left:
                if left:
                    self._done += left
                    job.sealed += left * self.rate
                    self._news[job.id] = job
                return
            job.sealed = end
            self._news[job.id] = job
            left -= needs
            self._done = 0.0
            queue.popleft()
