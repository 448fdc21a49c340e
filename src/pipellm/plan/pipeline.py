"""The pipeline: speculations in the order of their IVs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from pipellm.predict.ranges import Range
from pipellm.transfers import Transfer


@dataclass(slots=True, eq=False)
class Speculation:
    """A predicted swap-in with a place on the line of IVs.

    laid out --Speculate--> sealing --sealed--> sealed
        \\______________________|_________________|
                               |                 `-- Relinquish (any time before its request)
                            requested: waits for its IV, keeps its place
                               |
                        Commit, or SealNow if no ciphertext is fit to be sent
    """

    id: int
    key: Range
    iv: int
    count: int
    """Messages, and so IVs."""
    margin: int
    """IVs left free before it beyond those expected."""
    pattern: str
    asked: int = 0
    """Chunks [0, asked) are sealed or being sealed."""
    sealed: int = 0
    """Chunks [0, sealed) are known to be sealed."""
    request: Transfer | None = None
    """The request that has taken this place."""
    waiting: bool = False
    """Whether it was made to wait for others."""
    since: int = 0
    """When it began to wait, in ns."""
    promised: bool = False
    """Whether its request may be sent before the planner hears of it: the place stays."""

    @property
    def end(self) -> int:
        """The first IV after it."""
        return self.iv + self.count


class Pipeline:
    """Speculations, disjoint and ascending by IV, found by IV, by buffer and by id."""

    def __init__(self) -> None:
        self._line: list[Speculation] = []
        self._by_key: dict[Range, list[Speculation]] = {}
        self._by_id: dict[int, Speculation] = {}
        self.asked = 0
        """Chunks sealed or being sealed, all together."""
        self.messages = 0
        """IVs taken, all together."""
        self.taken = 0
        """How many places a request has taken."""

    def __iter__(self) -> Iterator[Speculation]:
        return iter(self._line)

    def __len__(self) -> int:
        return len(self._line)

    @property
    def head(self) -> Speculation | None:
        """The one with the lowest IV."""
        return self._line[0] if self._line else None

    def find(self, key: Range) -> Speculation | None:
        """The first one for this buffer that nobody has requested."""
        for speculation in self._by_key.get(key, ()):
            if speculation.request is None:
                return speculation
        return None

    def get(self, identity: int) -> Speculation | None:
        """The one with this id, if it is still here."""
        return self._by_id.get(identity)

    def requested(self) -> list[Speculation]:
        """Those whose places a request has taken."""
        if not self.taken:
            return []
        return [speculation for speculation in self._line if speculation.request is not None]

    def before(self, iv: int) -> list[Speculation]:
        """Those that begin before this IV."""
        return self._line[: bisect_left(self._line, iv, key=_iv)]

    def since(self, iv: int) -> list[Speculation]:
        """Those that begin at this IV or after."""
        return self._line[bisect_left(self._line, iv, key=_iv) :]

    def unsealed(self) -> list[Speculation]:
        """Those with chunks that somebody may yet be asked to seal, in order."""
        if self.asked == self.messages:
            return []
        return [
            one
            for one in self._line
            if one.asked < one.count and one.request is None and not one.promised
        ]

    def overlapping(self, address: int, nbytes: int) -> list[Speculation]:
        """Those that nobody has requested and whose buffers share a byte with this range."""
        return [
            speculation
            for speculation in self._line
            if speculation.request is None and overlap(speculation.key, (address, nbytes))
        ]

    def add(self, speculation: Speculation) -> None:
        """Put it in its place."""
        at = bisect_left(self._line, speculation.iv, key=_iv)
        self._line.insert(at, speculation)
        same = self._by_key.setdefault(speculation.key, [])
        same.insert(bisect_left(same, speculation.iv, key=_iv), speculation)
        self._by_id[speculation.id] = speculation
        self.messages += speculation.count

    def remove(self, speculation: Speculation) -> None:
        """Take it out."""
        del self._line[bisect_left(self._line, speculation.iv, key=_iv)]
        same = self._by_key[speculation.key]
        same.remove(speculation)
        if not same:
            del self._by_key[speculation.key]
        del self._by_id[speculation.id]
        self.asked -= speculation.asked
        self.messages -= speculation.count
        self.taken -= speculation.request is not None


def overlap(one: Range, other: Range) -> bool:
    """Whether two ranges share a byte."""
    return one[0] < other[0] + other[1] and other[0] < one[0] + one[1]


def _iv(speculation: Speculation) -> int:
    return speculation.iv
