"""The forecast, part by part: what to prefetch while there is room, the soonest first."""

from __future__ import annotations

from collections.abc import Iterator

from pipellm.predict import Predictor
from pipellm.predict.ranges import Range

_FIRST = 64  # so many swap-ins are foreseen at first
_FARTHEST = 1 << 15


def parts(buffer: Range, longest: int) -> Iterator[Range]:
    """A buffer in parts of at most `longest` bytes, which follow one another."""
    address, nbytes = buffer
    for offset in range(0, nbytes, longest):
        yield address + offset, min(longest, nbytes - offset)


class Forecast:
    """What the predictor foresees, and a cursor on it.

    It holds while requests come as foreseen. It is made as long as it is needed, longer each time:
    so a change of mind costs what was gained by the last one, however many buffers a program has.
    """

    def __init__(self, predictor: Predictor, longest: int) -> None:
        self.buffers: list[Range] = []
        """The soonest first."""
        self.complete = False
        """No more than these is foreseen."""
        self._predictor = predictor
        self._longest = longest
        self._depth = _FIRST
        self._at = 0
        self._offset = 0
        self._met: set[Range] = set()  # those before the cursor, unless asked for since
        self._asked = 0  # swap-ins since it was made

    def renew(self) -> None:
        """Things came otherwise: make it anew."""
        self._depth = _FIRST
        self._make()

    def asked(self, buffer: Range) -> bool:
        """A swap-in was asked for; returns whether the cursor had come to it."""
        self._asked += 1
        if buffer in self._met:  # if it is at the cursor too, it is there for the time after
            self._met.remove(buffer)
            return True
        if self._at < len(self.buffers) and self.buffers[self._at] == buffer:
            self._at += 1
            self._offset = 0
            return True
        return False

    def part(self) -> tuple[Range, Range] | None:
        """The part at the cursor, and the buffer that it belongs to; None if there is no more.

        Where a buffer comes round again, there is no more until it has been asked for.
        """
        if self._at == len(self.buffers) and not self._farther():
            return None
        buffer = self.buffers[self._at]
        address, nbytes = buffer
        if self._offset:
            return (address + self._offset, min(self._longest, nbytes - self._offset)), buffer
        if buffer in self._met:
            return None
        return (address, min(self._longest, nbytes)), buffer

    def advance(self) -> None:
        """On to the next part."""
        self._offset += self._longest
        if self._offset >= self.buffers[self._at][1]:
            self.skip()

    def skip(self) -> None:
        """On to the next buffer."""
        self._met.add(self.buffers[self._at])
        self._at += 1
        self._offset = 0

    def soon(self, nbytes: int, swap_ins: int) -> set[Range]:
        """The parts that come next from now on: so many bytes, or of so many swap-ins."""
        found: set[Range] = set()
        for buffer in self._foresee(swap_ins)[0]:
            for part in parts(buffer, self._longest):
                nbytes -= part[1]
                if nbytes < 0:
                    return found
                found.add(part)
        return found

    def _farther(self) -> bool:
        """Make it longer; returns whether there is anything at the cursor now."""
        if self.complete:
            if self._asked < _FIRST:
                return False
            self.renew()
            return bool(self.buffers)
        if self._depth == _FARTHEST:
            if not self._asked:
                return False
            self._make()
            return bool(self.buffers)
        before = len(self.buffers)
        self._depth *= 2
        self._make()
        self.complete |= len(self.buffers) <= before
        return bool(self.buffers)

    def _make(self) -> None:
        self.buffers, foreseen = self._foresee(self._depth)
        self.complete = foreseen < self._depth
        self._at = self._offset = self._asked = 0
        self._met.clear()

    def _foresee(self, n: int) -> tuple[list[Range], int]:
        """The buffers among the next `n` swap-ins, and how many swap-ins are foreseen at all."""
        coming = self._predictor.upcoming(n)
        return [(item.address, item.nbytes) for item in coming if item.address is not None], len(
            coming
        )
