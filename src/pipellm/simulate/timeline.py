"""The device's own time: when each stream and each copy engine is done with what was queued.

The arithmetic is that of `native/emulator/timeline.h`, in seconds.
"""

from __future__ import annotations

from collections import deque

from pipellm.transfers import Direction

_REMEMBERED = 256  # stretches; what ended before them is forgotten


class Engine:
    """When one copy engine is busy."""

    def __init__(self) -> None:
        self._busy: list[tuple[float, float]] = []  # disjoint, ascending

    def reserve(self, ready: float, seconds: float, *, in_order: bool) -> tuple[float, float]:
        """The first stretch of `seconds` from `ready` on that is free: start and end.

        A copy that waits for its own stream leaves the engine to others meanwhile, unless
        `in_order`: under confidential computing the IVs fix the order.
        """
        busy = self._busy
        at, start = len(busy), ready
        if busy and busy[-1][1] > ready:
            start = busy[-1][1]
        if not in_order:
            for i in range(len(busy) - 1, -1, -1):
                if busy[i][1] <= ready:
                    break
                gap = max(ready, busy[i - 1][1]) if i else ready
                if gap + seconds <= busy[i][0]:
                    start, at = gap, i
        end = start + seconds
        if at and busy[at - 1][1] == start:
            busy[at - 1] = (busy[at - 1][0], end)
        else:
            busy.insert(at, (start, end))
            if len(busy) > _REMEMBERED:
                del busy[0]
        return start, end

    def hold(self, until: float) -> None:
        """Whatever it does last is not over before `until`."""
        if self._busy and self._busy[-1][1] < until:
            self._busy[-1] = (self._busy[-1][0], until)


class Timeline:
    """Streams and engines. `duplex`: an engine for each direction, else one for all, in order."""

    def __init__(self, *, duplex: bool) -> None:
        self._duplex = duplex
        self._engines = (Engine(), Engine())
        self._finish: dict[int, float] = {}

    def finish(self, stream: int | None) -> float:
        """When the device is done with a stream (None: with all)."""
        if stream is None:
            return max(self._finish.values(), default=0.0)
        return self._finish.get(stream, 0.0)

    def hold(self, stream: int, until: float) -> None:
        """Nothing queued on `stream` from now on starts before."""
        self._finish[stream] = max(self._finish.get(stream, 0.0), until)

    def compute(self, stream: int, ready: float, seconds: float) -> float:
        """Work that only its stream waits for; returns its end."""
        finish = self._finish.get(stream, 0.0)
        end = self._finish[stream] = (finish if finish > ready else ready) + seconds
        return end

    def copy(self, stream: int, direction: Direction, ready: float, seconds: float) -> float:
        """A copy whose bytes are all there at `ready`; returns its end."""
        return self.stream_in(stream, direction, ready, seconds, ready)

    def stream_in(
        self, stream: int, direction: Direction, ready: float, seconds: float, not_before: float
    ) -> float:
        """A copy whose first message is there at `ready`; it cannot end before `not_before`."""
        engine = self._engines[direction if self._duplex else 0]
        finish = self._finish.get(stream, 0.0)
        if finish > ready:
            ready = finish
        _, end = engine.reserve(ready, seconds, in_order=not self._duplex)
        if end < not_before:
            end = not_before
            engine.hold(end)
        self._finish[stream] = end
        return end


class Ring:
    """The slots of a bounce buffer, taken in turn: each is free once its message has left it."""

    SLOTS = 16
    """As many as the driver has (native/emulator/open_channel.cpp)."""

    def __init__(self) -> None:
        self._used: deque[tuple[int, float, float]] = deque()
        self._remembered = 0

    def fill(self, messages: int, end: float, seconds: float) -> None:
        """So many messages took the next slots; the last leaves at `end`, one every `seconds`."""
        self._used.append((messages, end, seconds))
        self._remembered += messages
        while self._remembered - self._used[0][0] > self.SLOTS:
            self._remembered -= self._used.popleft()[0]

    def left(self, back: int) -> float:
        """When the message that is the `back`th last (1: the last) leaves its slot."""
        for messages, end, seconds in reversed(self._used):
            if back <= messages:
                return end - (back - 1) * seconds
            back -= messages
        return 0.0
