"""The patterns FIFO and LIFO: what was swapped out comes back.

Swap-outs wait here until they return. They wait in *bursts*: what was swapped out in one batch,
without a swap-in or a synchronisation in between. Within a burst they return in the order they
left. Layer-wise KV returns oldest burst first (FIFO), preempted requests return newest first
(LIFO); where a program swaps out buffer by buffer, each is a burst of its own.

      oldest                                       newest
    [ a1 a2 a3 ]   [ b1 b2 ]   [ c1 c2 c3 c4 ]   [ d1 d2 ]      FIFO  a1 a2 a3 b1 ...
                                                                LIFO  d1 d2 c1 c2 ...

A burst that is passed over keeps its place right behind the next one, once; passed over again it
is no longer expected: some of what is swapped out never returns, and must not stand in the way for
ever. A return from deep inside is taken for an exception. Either way, once the first of a burst is
back the others of that burst are expected next.
"""

from __future__ import annotations

from bisect import bisect_left

from pipellm.predict.prediction import Prediction
from pipellm.predict.ranges import Range
from pipellm.predict.record import Record
from pipellm.transfers import Direction, Transfer

_SKIP = 8  # so many bursts may be passed over at once; a return from beyond is an exception
_TURN = 256  # a burst of at most so many buffers is turned to where a return came from


class Returns:
    """Expects what was swapped out, newest or oldest burst first."""

    def __init__(self, *, newest_first: bool, bursts: bool = True) -> None:
        self.name = "lifo" if newest_first else "fifo"
        self._newest_first = newest_first
        self._bursts = bursts
        self._starts = Record()  # of the first of each burst
        self._within = Record()  # of the others
        self._line: list[int] = []  # the bursts not passed over, oldest first
        self._passed: list[int] = []  # the bursts passed over once, the soonest expected first
        self._members: dict[int, dict[Range, None]] = {}
        self._burst_of: dict[Range, int] = {}
        self._burst = 0  # the one that swap-outs join now
        self._open = False  # whether the next swap-out joins it
        self._current = -1  # the one that is returning
        self._first_gap = 0  # messages before the first of a burst, as of late
        self._next_gap = 0  # messages before the others
        self._stream = 0

    @property
    def confidence(self) -> float:
        """How sure it is of the next swap-in."""
        within = self._current in self._members
        return (self._within if within else self._starts).confidence

    @property
    def reach(self) -> float:
        """How sure it is of the next burst."""
        return self._starts.confidence

    def observe(self, transfer: Transfer, gap: int) -> None:
        """A swap-out left, or a swap-in returned."""
        key = (transfer.address, transfer.nbytes)
        if transfer.direction is Direction.D2H:
            self._leave(key)
        else:
            self._open = False
            if key in self._burst_of:
                self._stream = transfer.stream
                self._return(key, gap)
            elif self._members:
                # It had returned before. Not to mind would be to expect for ever, and ever as
                # surely, what never returns.
                self._starts.wrong()

    def predict(self, n: int) -> list[Prediction]:
        """The next to return."""
        starts, within = self._starts.confidence, self._within.confidence
        predictions: list[Prediction] = []
        for burst in self._order(n):
            gap, confidence = self._next_gap, within
            if burst != self._current:
                gap, confidence = self._first_gap, starts
            for address, nbytes in self._members[burst]:
                predictions.append(
                    Prediction(address, nbytes, self._stream, gap, confidence, self.name)
                )
                if len(predictions) == n:
                    return predictions
                gap, confidence = self._next_gap, within
        return predictions

    def forget(self, address: int, nbytes: int) -> None:
        """This buffer will not return."""
        if (address, nbytes) in self._burst_of:
            self._remove((address, nbytes))

    def sync(self) -> None:
        """What is swapped out from here on is another burst."""
        self._open = False

    def _leave(self, key: Range) -> None:
        if key in self._burst_of:
            self._remove(key)
        if not (self._open and self._bursts):
            self._burst += 1
            self._line.append(self._burst)
            self._members[self._burst] = {}
            if self._newest_first:
                self._current = -1
        elif self._burst not in self._members:  # all of it has returned or is gone already
            self._line.append(self._burst)
            self._members[self._burst] = {}
        self._open = True
        self._members[self._burst][key] = None
        self._burst_of[key] = self._burst

    def _return(self, key: Range, gap: int) -> None:
        record = self._within if self._current in self._members else self._starts
        if self._first() == key:
            record.right()
        else:
            record.wrong()
        burst = self._burst_of[key]
        if burst == self._current:
            self._next_gap = gap
        else:
            self._first_gap = gap
            self._pass_over(burst)
        self._turn(burst, key)
        self._current = burst
        self._remove(key)

    def _first(self) -> Range | None:
        for burst in self._order(1):
            return next(iter(self._members[burst]))
        return None

    def _order(self, n: int) -> list[int]:
        """The bursts that are expected next, as many as hold `n` buffers at least or all."""
        order = [self._current] if self._current in self._members else []
        end = len(self._line)
        line = self._line[: -n - 2 : -1] if self._newest_first else self._line[: min(n + 1, end)]
        order += [burst for burst in line if burst != self._current]
        if self._passed:
            order[1:1] = [burst for burst in self._passed if burst != self._current]
        return order

    def _pass_over(self, burst: int) -> None:
        """Another burst begins to return: what was expected before it has been passed over."""
        at = bisect_left(self._line, burst)
        if burst in self._passed or self._line[at : at + 1] != [burst]:
            return
        if (len(self._line) - at - 1 if self._newest_first else at) > _SKIP:
            return
        for other in self._passed[:]:
            if other != self._current:
                self._retire(other)
        before = slice(at + 1, None) if self._newest_first else slice(0, at)
        ahead = self._line[before]
        self._line[before] = [other for other in ahead if other == self._current]
        ahead = [other for other in ahead if other != self._current]
        self._passed += ahead[::-1] if self._newest_first else ahead

    def _turn(self, burst: int, key: Range) -> None:
        """What stood before `key` in its burst goes to the back."""
        members = self._members[burst]
        if len(members) <= _TURN:
            while (first := next(iter(members))) != key:
                del members[first]
                members[first] = None

    def _remove(self, key: Range) -> None:
        burst = self._burst_of.pop(key)
        del self._members[burst][key]
        if not self._members[burst]:
            del self._members[burst]
            self._retire(burst)

    def _retire(self, burst: int) -> None:
        """Expect this burst no longer, unless one of it returns after all."""
        if burst in self._passed:
            self._passed.remove(burst)
            return
        at = bisect_left(self._line, burst)
        if at < len(self._line) and self._line[at] == burst:
            del self._line[at]
