"""Finds the place in its own past that a sequence is repeating right now.

A sequence of numbers is followed by a pointer into its own history: as long as what comes equals
what came after the pointer then, the pointer moves along, and the history after it is the
prediction. This is the match model of the strong data compressors. It knows nothing of periods and
so finds any: a loop of 197 transfers with an irregular order inside, a forward pass and its
reversal, one phase or another that was seen before.

When the next number is another than expected, the pointer has to move, in this order of trust:

1. to where the last numbers (16, 5, or 2 of them) were seen before, most recently;
2. a few steps ahead (something was left out) or one back (something was put in);
3. to where this number alone was seen before, and back if the next one shows that it led astray;
4. if it was never seen: one step ahead, taking it for what stands there under a new name.

Everything is O(1) per number; memory is bounded by the capacity.
"""

from __future__ import annotations

from pipellm.predict.record import Record

_ORDERS = (16, 5, 2, 1)  # lengths of the contexts that are looked up, longest first
_TELLING = 2  # so many of them, when they come back, do so for a reason
_MASK = (1 << 61) - 1
_BASE = 0x5851F42D4C957F2D & _MASK
_BASE_16, _BASE_5 = pow(_BASE, 16, 1 << 61), pow(_BASE, 5, 1 << 61)
_NEAR = (1, 2, 3, 4, 5, 6, 7, 8, -1)
_RENAMED = 4  # so many new numbers in a row may stand for old ones; more are a new phase
_FLEETING = 2  # so often renamed, and the name at this place says nothing


class Echo:
    """The history of a sequence, and the pointer to where it is being repeated."""

    def __init__(self, capacity: int = 1 << 14) -> None:
        self.count = 0
        """How many numbers were observed: the index of the next one."""
        self.record = Record()
        self._capacity = capacity
        self._symbols: list[int] = []
        self._renames: list[int] = []
        self._next = -1  # index of the number that is expected next; -1: none
        self._unknown = 0  # how many numbers in a row were never seen before
        self._strayed = -1  # where the pointer was before it followed a single number elsewhere
        self._hashes = (0, 0, 0, 0)  # of the contexts that end in the last number
        self._trail: list[tuple[int, int, int, int]] = []  # the hashes at each index
        self._seen: tuple[dict[int, int], ...] = ({}, {}, {}, {})  # hash of a context -> its index

    def observe(self, symbol: int) -> None:
        """The next number of the sequence."""
        index, expected, strayed = self.count, self._next, self._strayed
        self._strayed = -1
        self._roll(symbol)
        renames = 0
        if expected < 0:
            self._next = self._recall(len(_ORDERS))
            self._unknown = 0 if self._next >= 0 else self._unknown
        elif self._symbols[expected % self._capacity] == symbol:
            self.record.right()
            self._next = expected + 1
            self._unknown = 0
        elif self.fleeting(expected):  # nothing was claimed for this place
            # Unless it is another place: one fleeting number looks like any other.
            self._next = self._recall(_TELLING)
            if self._next < 0:
                self._next = expected + 1
                renames = _FLEETING
        else:
            self.record.wrong()
            if self._hashes[-1] not in self._seen[-1]:
                renames = self._rename(expected)
            else:
                self._unknown = 0
                self._next = self._realign(symbol, expected, strayed)
        self._append(index, symbol, renames)

    def ahead(self, n: int) -> list[int]:
        """The indices whose numbers are expected next, at most `n`; the period goes round."""
        start, count = self._next, self.count
        if start < 0 or start <= count - self._capacity:
            return []
        indices: list[int] = []
        while len(indices) < n:
            indices.extend(range(start, min(count, start + n - len(indices))))
        return indices

    def symbol(self, index: int) -> int:
        """The number at an index that `ahead` gave."""
        return self._symbols[index % self._capacity]

    def recent(self, n: int) -> list[int]:
        """The last `n` numbers, oldest first, or all there are."""
        first = max(self.count - n, self.count - len(self._symbols))
        return [self.symbol(index) for index in range(first, self.count)]

    def fleeting(self, index: int) -> bool:
        """Whether the number at this place is another every time round."""
        return self._renames[index % self._capacity] >= _FLEETING

    def _roll(self, symbol: int) -> None:
        """Bring the hashes of the contexts up to `symbol`; what was before the first counts as 0.

        Polynomials in the last numbers, so that the longer ones can be rolled on.
        """
        index, capacity, symbols = self.count, self._capacity, self._symbols
        h16, h5, _, last = self._hashes
        out16 = symbols[(index - 16) % capacity] if index >= 16 else 0
        out5 = symbols[(index - 5) % capacity] if index >= 5 else 0
        self._hashes = (
            (h16 * _BASE + symbol - out16 * _BASE_16) & _MASK,
            (h5 * _BASE + symbol - out5 * _BASE_5) & _MASK,
            (last * _BASE + symbol) & _MASK,
            symbol,
        )

    def _recall(self, orders: int) -> int:
        """What came after the longest of these contexts when it was seen last, or -1."""
        for seen, value in zip(self._seen[:orders], self._hashes, strict=False):
            index = seen.get(value)
            if index is not None:
                return index + 1
        return -1

    def _realign(self, symbol: int, expected: int, strayed: int) -> int:
        found = self._return(symbol, strayed)
        if found < 0:
            found = self._recall(len(_ORDERS) - 1)
        if found < 0:
            found = self._near(symbol, expected)
        if found < 0:
            found = self._recall(len(_ORDERS))
            self._strayed = expected
        return found

    def _return(self, symbol: int, strayed: int) -> int:
        """Back to where the pointer was before it followed one number astray, or -1."""
        if self._holds(strayed + 1, symbol) and strayed >= 0:  # it stood for the one expected
            last = (self.count - 1) % self._capacity
            self._renames[last] = min(self._renames[strayed % self._capacity] + 1, _FLEETING)
            return strayed + 2
        if self._holds(strayed, symbol):  # it was put in between
            return strayed + 1
        return -1

    def _near(self, symbol: int, expected: int) -> int:
        for step in _NEAR:
            if self._holds(expected + step, symbol):
                return expected + step + 1
        return -1

    def _holds(self, index: int, symbol: int) -> bool:
        """Whether this index is in the history and holds `symbol`."""
        oldest = self.count - len(self._symbols)
        return max(oldest, 0) <= index < self.count and self.symbol(index) == symbol

    def _rename(self, expected: int) -> int:
        """A number never seen stands where another was expected; returns how often that was so."""
        self._unknown += 1
        if self._unknown > _RENAMED:
            self._next = -1
            return 0
        self._next = expected + 1
        return min(self._renames[expected % self._capacity] + 1, _FLEETING)

    def _append(self, index: int, symbol: int, renames: int) -> None:
        capacity = self._capacity
        if index < capacity:
            self._symbols.append(symbol)
            self._renames.append(renames)
            self._trail.append(self._hashes)
        else:
            slot, evicted = index % capacity, index - capacity
            self._symbols[slot] = symbol
            self._renames[slot] = renames
            for seen, value in zip(self._seen, self._trail[slot], strict=True):
                if seen.get(value) == evicted:
                    del seen[value]
            self._trail[slot] = self._hashes
            if self._next <= evicted:
                self._next = -1
        h16, h5, h2, h1 = self._hashes
        in16, in5, in2, in1 = self._seen
        in16[h16] = in5[h5] = in2[h2] = in1[h1] = index
        self.count = index + 1
