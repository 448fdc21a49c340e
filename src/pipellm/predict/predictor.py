"""The predictor: which swap-ins of one device come next, in which order.

Swap-ins are sorted into lanes that do not disturb each other: what was swapped out before returns
in a lane of its own, whatever else is loaded has a lane per stream. Within a lane patterns compete
(`lane`); in which order the lanes take turns is a sequence like any other and is followed as one
(`echo`). Where the turns follow no order, the recent ones stand for those to come, as surely as
recent swap-ins were foreseen by their lanes at all; a request that comes a little early can then
wait for the others of its batch. It cannot wait where the program does: nothing is predicted across
blocking lanes that take turns in no order.

One predictor serves one device; small transfers only count, as the messages between two swap-ins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle, islice
from typing import NamedTuple

from pipellm.predict.echo import Echo
from pipellm.predict.lane import Lane
from pipellm.predict.prediction import Prediction
from pipellm.predict.ranges import Range, Ranges
from pipellm.predict.repetitive import By, Repetitive
from pipellm.predict.returns import Returns
from pipellm.predict.sizes import Sizes
from pipellm.predict.told import Told
from pipellm.transfers import Direction, Transfer, messages

_RETURNS = -1  # the lane of what was swapped out; the others are named by their stream
_LANES = 16  # the lane that has been idle longest makes room
_WORTH = 0.5  # what is likelier not to come than to come is not predicted
_FADE = 1 / 16
_IN_TURN = 0.8  # two threads that race are right about each other's turns half of the time
_MIX = 16  # so many recent turns stand for those to come where they follow no order


class Observation(NamedTuple):
    """What a transfer was to the predictor."""

    swap: bool
    expected: bool
    """Whether it was the very next swap-in of its lane, and the lane's turn."""
    foreseen: Prediction | None
    """What its lane said about it, if it did."""
    surplus: int
    """How many more messages came before it than that said."""


_H2D = Direction.H2D  # an enumeration's members are slow to look up
_SMALL = Observation(False, True, None, 0)
_SWAP_OUT = Observation(True, True, None, 0)


class Predictor:
    """Told every transfer of one device, in the order of the requests."""

    def __init__(self) -> None:
        self.sizes = Sizes()
        self._lanes: dict[int, Lane] = {}  # the one used last comes last
        self._turns = Echo(1 << 12)
        self._foreseen = 0.0  # recent share of swap-ins that their lanes foresaw
        self._blocking = False
        self._gap = 0  # messages of small transfers since the last swap-in
        self._sources = Ranges()
        self._swapped_out = Ranges()
        self._told = Told()

    def expect(self, groups: Iterable[Sequence[Range]]) -> None:
        """The program says what it will swap in next, in its order: see `told`.

        Whatever it names is expected like something that was swapped out.
        """
        known = [[key for key in group if self.sizes.is_swap(key[1])] for group in groups]
        for group in known:
            for key in group:
                self._crowded_out(self._swapped_out.add(key))
        self._lane(_RETURNS)
        self._told.tell(known)

    def observe(self, transfer: Transfer) -> Observation:
        """A transfer was requested."""
        if not self.sizes.is_swap(transfer.nbytes):
            if transfer.direction == _H2D:
                self._gap += messages(transfer.nbytes)
            return _SMALL
        key = (transfer.address, transfer.nbytes)
        if transfer.direction != _H2D:
            self._crowded_out(self._swapped_out.add(key))
            self._lane(_RETURNS).observe(transfer, 0)
            return _SWAP_OUT
        name = _RETURNS if key in self._swapped_out else transfer.stream
        lane = self._lane(name)
        foreseen = self._foresaw(lane, key)
        turn = self._take_turn(name)
        self._foreseen += _FADE * ((foreseen is not None) - self._foreseen)
        self._blocking = transfer.blocking
        self._sources.add(key)
        lane.observe(transfer, self._gap)
        surplus = self._gap - foreseen.gap if foreseen else 0
        self._gap = 0
        return Observation(True, foreseen is not None and turn, foreseen, surplus)

    def small(self, nbytes: int) -> bool:
        """Whether a copy to the device is too small for a swap; then this is all it is told of."""
        if self.sizes.is_swap(nbytes):
            return False
        self._gap += messages(nbytes)
        return True

    @property
    def names_buffers(self) -> bool:
        """Whether any lane says now which buffers come."""
        return any(lane.names_buffers for lane in self._lanes.values())

    def predict(self, n: int) -> list[Prediction]:
        """At most the next `n` swap-ins, soonest first, as far as they are likely to come.

        Each one's confidence is that of everything up to it. Empty if nothing is predictable.
        """
        return list(self.foresee(n))

    def foresee(self, n: int) -> Iterator[Prediction]:
        """The same, one by one, for as long as nothing is observed."""
        likely = 1.0
        came: int | None = self._gap
        for address, nbytes, stream, gap, confidence, pattern in self._merge(n):
            likely *= confidence
            if likely < _WORTH:
                return
            if address is not None and not self._exists((address, nbytes)):
                continue
            if came is not None:
                # What has come already is not to come. Where more came than expected, the longer
                # it has been the longer it will be: nothing is overrun more than log n times.
                gap, came = abs(gap - came), None
            yield Prediction(address, nbytes, stream, gap, likely, pattern)

    def upcoming(self, n: int) -> list[Prediction]:
        """At most `n` swap-ins that will come before long, about in this order.

        For whoever does not care whether one comes out of turn or not at all: that says little
        about those behind it, so there is no end to them while their lanes are sure of the next.
        """
        lanes = {name: iter(lane.predict(n)) for name, lane in self._lanes.items()}
        coming: list[Prediction] = []
        if len(lanes) > 1:
            for name in self._next_turns(n):
                coming.extend(islice(lanes.get(name, ()), 1))
        for lane in lanes.values():
            coming.extend(islice(lane, n - len(coming)))
        return [
            item
            for item in coming
            if item.address is None or self._exists((item.address, item.nbytes))
        ]

    def forget(self, address: int, nbytes: int) -> None:
        """Host memory was freed, or became something else: no buffer in it will be seen again."""
        for key in self._sources.overlapping(address, nbytes):
            self._sources.discard(key)
        for key in self._swapped_out.overlapping(address, nbytes):
            self._swapped_out.discard(key)
            self._crowded_out(key)

    def sync(self) -> None:
        """The program synchronised: batches end here."""
        if _RETURNS in self._lanes:
            self._lanes[_RETURNS].sync()

    def _foresaw(self, lane: Lane, key: Range) -> Prediction | None:
        """What the lane says of this swap-in, if it is the one that it expects."""
        for item in lane.predict(1):
            if item.nbytes == key[1] and (item.address is None or item.address == key[0]):
                return item
        return None

    def _take_turn(self, name: int) -> bool:
        """Note whose turn it is; returns whether it was expected."""
        if len(self._lanes) == 1:
            return True
        expected = self._turns.ahead(1)
        self._turns.observe(name)
        return bool(expected) and self._turns.symbol(expected[0]) == name

    def _merge(self, n: int) -> Iterator[Prediction]:
        """The predictions of all lanes, each with the confidence of its own step."""
        if len(self._lanes) == 1:
            for lane in self._lanes.values():
                yield from lane.predict(n)
            return
        coming = {name: iter(lane.predict(n)) for name, lane in self._lanes.items()}
        certainty = self._turns.record.confidence
        ordered = certainty >= _IN_TURN
        if not ordered:
            if self._blocking:
                return
            certainty = self._foreseen
        for name in self._next_turns(n):
            item = next(coming[name], None) if name in coming else None
            if item is not None:
                yield item._replace(confidence=item.confidence * certainty)
            elif ordered:  # a swap will come of which nothing is known, not even its size
                return

    def _next_turns(self, n: int) -> Iterator[int]:
        """The lanes of the next `n` swap-ins, as far as anything is known of their order."""
        turns = self._turns
        if turns.record.confidence >= _IN_TURN:
            return (turns.symbol(index) for index in turns.ahead(n))
        return islice(cycle(turns.recent(_MIX)), n)

    def _lane(self, name: int) -> Lane:
        lane = self._lanes.pop(name, None)
        if lane is None:
            lane = self._returns() if name == _RETURNS else _weights()
            if len(self._lanes) >= _LANES:
                del self._lanes[next(iter(self._lanes))]
        self._lanes[name] = lane
        return lane

    def _returns(self) -> Lane:
        return Lane(
            [
                self._told,
                Repetitive(By.PLACE),
                Returns(newest_first=False),
                Returns(newest_first=True),
                Returns(newest_first=True, bursts=False),
            ]
        )

    def _exists(self, key: Range) -> bool:
        return key in self._sources or key in self._swapped_out

    def _crowded_out(self, key: Range | None) -> None:
        if key is not None and _RETURNS in self._lanes:
            self._lanes[_RETURNS].forget(*key)


def _weights() -> Lane:
    return Lane([Repetitive(By.PLACE)], Repetitive(By.SIZE))
