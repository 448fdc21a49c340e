"""Lays the forecast out along the line of IVs, and seals it as far as the window reaches."""

from __future__ import annotations

from itertools import count

from pipellm.plan.actions import Why
from pipellm.plan.landing import Landing
from pipellm.plan.ledger import LAST
from pipellm.plan.leeway import Leeway
from pipellm.plan.line import Line
from pipellm.plan.pipeline import Speculation
from pipellm.plan.trust import Trust
from pipellm.plan.window import Window
from pipellm.predict import Predictor
from pipellm.predict.ranges import Range
from pipellm.transfers import messages

HORIZON = 64
"""So many swap-ins are planned ahead at most."""
_PIECE = 8  # chunks: what does not fit the window grows in pieces, not in crumbs


class Layout:
    """Keeps the line filled with what the predictor foresees."""

    def __init__(self, line: Line, predictor: Predictor, budget_chunks: int) -> None:
        self.window = Window(budget_chunks)
        self.leeway = Leeway()
        self.trust = Trust()
        self.landing = Landing()
        self._line = line
        self._predictor = predictor
        self._ids = count(1)
        self._short = 0  # with so few speculations the line is laid out again
        self._owed = False  # what was promised kept the line from being laid out

    def refresh(self, *, surprised: bool) -> None:
        """Follow the forecast: all over again after a surprise, else when the line is short."""
        line = self._line
        if line.mispredicted:
            self.window.shrink()
        if self.window.closed:
            line.mispredicted = False
            return
        if surprised or self._owed or line.changed or len(line.pipeline) <= self._short:
            self._lay_out()
            self._short = (len(line.pipeline) - line.pipeline.taken) // 2
        line.changed = line.mispredicted = False
        self._fill()

    def _lay_out(self) -> None:
        """Give every predicted swap-in a place, keeping places that still fit.

        Up to twice the window, so that this has to be done again only when half of it is used up. A
        forecast that knows nothing changes nothing: what was foreseen may still come true. While
        places are promised that it leaves out, the rest of the line waits.
        """
        self._owed = False
        pipeline, ledger, costs = self._line.pipeline, self._line.ledger, self._line.costs
        if not pipeline and not self._predictor.names_buffers:
            return  # no place to keep, none to give: what random orders come to
        overrun_ns = self.window.chunks * costs.seal_ns
        margins: dict[tuple[str, bool], int] = {}
        start = max([ledger.next, *(waiting.end for waiting in pipeline.requested())])
        places = _Places(self._line, start)
        cursor = start
        for item in self._predictor.foresee(HORIZON):
            needed = messages(item.nbytes)
            key = None if item.address is None else (item.address, item.nbytes)
            kind = (item.pattern, item.gap > 0)
            if kind not in margins:
                margins[kind] = self.leeway.margin(item, overrun_ns, costs.nop_ns)
            margin = margins[kind]
            if places.promised:
                if (held := places.hold(key)) is None:
                    self._owed = True
                    return
                cursor = held.end
                continue
            lead = max(item.gap + margin, 0)
            earliest = cursor + min(item.gap // 2, lead)  # closer than this it will be overrun
            if kept := places.keep(key, needed, earliest):
                cursor = kept.end
                continue
            if key and (found := pipeline.find(key)) and found.iv < start:
                continue  # has a place before requests that wait, and may still come
            iv = places.fit(cursor + lead, needed, earliest)
            cursor = iv + needed
            if (pipeline.messages >= 2 * self.window.chunks and places.all_kept) or cursor > LAST:
                return
            if key and self.trust.allows(key) and not self.landing.covers(key):
                pipeline.add(
                    Speculation(next(self._ids), key, iv, needed, max(margin, 0), item.pattern)
                )

    def _fill(self) -> None:
        """Have the line sealed in its order, as far as the window reaches."""
        pipeline = self._line.pipeline
        room = self.window.chunks - pipeline.asked
        if room <= 0:
            return
        for speculation in pipeline.unsealed():
            missing = speculation.count - speculation.asked
            piece = min(missing, room)
            if piece < min(missing, _PIECE):
                return
            self._line.ask(speculation, speculation.asked + piece)
            room -= piece


class _Places:
    """The places on the line from an IV on, while a forecast is laid out over them in order."""

    def __init__(self, line: Line, start: int) -> None:
        self._line = line
        self._places = line.pipeline.since(start)
        self._at = 0  # those before it are settled
        self._where: dict[Range, int] | None = None

    @property
    def all_kept(self) -> bool:
        """Whether the forecast has come to the end of the line."""
        return self._at >= len(self._places)

    @property
    def promised(self) -> bool:
        """Whether the next place may be taken by a request that nobody has told of."""
        return not self.all_kept and self._places[self._at].promised

    def hold(self, key: Range | None) -> Speculation | None:
        """The next place, which is promised; None if it is another buffer's."""
        place = self._places[self._at]
        if place.key != key:
            return None
        self._at += 1
        return place

    def keep(self, key: Range | None, needed: int, earliest: int) -> Speculation | None:
        """The place this buffer has already; those that were left out before it are given up.

        Not one before IV `earliest`. A swap-in of which only the size is known may be the next
        one, if that has this size.
        """
        places, at = self._places, self._at
        if at >= len(places):
            return None
        found = at
        if key is None:
            found = at if places[at].count == needed else -1
        elif places[at].key != key:
            found = self._next_of(key)
        if found < at or places[found].iv < earliest:
            return None
        for left_out in places[at:found]:
            self._line.drop(left_out, Why.UNFORESEEN)
        self._at = found + 1
        return places[found]

    def _next_of(self, key: Range) -> int:
        if self._where is None:
            last = len(self._places) - 1
            self._where = {place.key: last - i for i, place in enumerate(self._places[::-1])}
        return self._where.get(key, -1)

    def fit(self, best: int, needed: int, earliest: int) -> int:
        """The IV for a new place: the best, or down to `earliest` where room is short.

        Where there is no room, what follows has the wrong IVs and is given up.
        """
        if self.all_kept:
            return best
        iv = min(best, self._places[self._at].iv - needed)
        if iv >= earliest:
            return iv
        for misplaced in self._places[self._at :]:
            self._line.drop(misplaced, Why.UNFORESEEN)
        del self._places[self._at :]
        return best
