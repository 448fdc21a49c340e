"""A simple model of CUDA's rules: what a device's timeline must say, and when a call may return.

It knows nothing of threads or ciphertexts. Bytes move when they are asked to, which is what every
correctly synchronised program must see; time is plain arithmetic on what was queued.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Span = tuple[int, int]


@dataclass
class CudaRules:
    """One device, `streams` streams (0 is the default one), times in ns."""

    streams: int
    confidential: bool
    launch: int
    toll: int
    engine_ns_per_byte: int
    call_extra: int
    """What a blocking call takes beyond the engine's time, CC off."""
    within_ns_per_byte: int = 0
    within_base: int = 0
    """A copy within the device's memory takes this, and that for each byte."""
    now: int = 0
    finish: list[int] = field(init=False)
    busy: dict[int, list[Span]] = field(default_factory=lambda: {0: [], 1: []})

    def __post_init__(self) -> None:
        self.finish = [0] * self.streams

    def work(self, stream: int, duration: int) -> None:
        self.now += self.launch
        self.finish[stream] = max(self.now, self.finish[stream]) + duration

    def copy(
        self, direction: int, nbytes: int, *, stream: int, pinned: bool, asynchronous: bool
    ) -> None:
        if nbytes == 0:
            return
        duration = nbytes * self.engine_ns_per_byte
        start = self.now
        if not self.confidential:
            if pinned and asynchronous:
                self.now = start + self.launch
                self._queue(stream, direction, self.now, duration)
            else:
                end = self._queue(stream, direction, start + self.call_extra, duration)
                staged = asynchronous and direction == 0
                self.now = start + self.call_extra + duration if staged else end
            return
        if pinned and direction == 0:
            self.wait(self.finish[stream])
        self.now += self.toll
        end = self._queue(stream, direction, self.now, duration)
        if not (asynchronous and direction == 0 and not pinned):
            self.wait(end)

    def within(self, nbytes: int, count: int, *, stream: int) -> None:
        """So many copies of so many bytes in all, within the device's memory, in one launch."""
        self.work(stream, nbytes * self.within_ns_per_byte + count * self.within_base)

    def record(self, stream: int) -> int:
        return max(self.now, self.finish[stream])

    def wait_event(self, stream: int, time: int) -> None:
        self.finish[stream] = max(self.finish[stream], time)

    def wait(self, time: int) -> None:
        self.now = max(self.now, time)

    def _queue(self, stream: int, direction: int, ready: int, duration: int) -> int:
        ready = max(ready, self.finish[stream])
        taken = self.busy[0 if self.confidential else direction]
        # Under confidential computing one context's copies serialise, in order. Without it, a copy
        # takes the first time at which its direction's engine is free.
        starts = [ready, *(end for _, end in taken if end > ready)]
        if self.confidential:
            starts = [max(starts)]
        start = min(s for s in starts if all(s + duration <= a or b <= s for a, b in taken))
        taken.append((start, start + duration))
        self.finish[stream] = start + duration
        return start + duration
