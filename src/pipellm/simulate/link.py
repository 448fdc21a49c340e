"""What a copy costs on the link of a profile, in seconds."""

from __future__ import annotations

from pipellm.gpu.emulated.profile import Cost, Link
from pipellm.gpu.emulated.profile_table import Curve
from pipellm.simulate.timeline import Ring, Timeline
from pipellm.transfers import CHUNK, Direction, messages

_H2D = Direction.H2D  # an enumeration's members are slow to look up


class Path:
    """One direction of copies from or to one kind of host memory (native/emulator/cost_model.h)."""

    def __init__(self, cost: Cost) -> None:
        self.toll = cost.toll_us * 1e-6
        self.paced = cost.call is not None
        """Whether the modelled host is slower than what seals for it."""
        self._engine = _Seconds(cost.engine)
        self._call = _Seconds(cost.call) if cost.call else None

    def engine(self, nbytes: int) -> float:
        """How long the copy engine is busy."""
        return self._engine[nbytes]

    def call(self, nbytes: int) -> float:
        """How long a blocking call takes at least; 0 where nothing paces it."""
        return self._call[nbytes] if self._call is not None else 0.0


class Paths:
    """All four of them."""

    def __init__(self, link: Link) -> None:
        self._paths = {
            Direction.H2D: (Path(link.h2d.pageable), Path(link.h2d.pinned)),
            Direction.D2H: (Path(link.d2h.pageable), Path(link.d2h.pinned)),
        }

    def of(self, direction: Direction, *, pinned: bool) -> Path:
        return self._paths[direction][pinned]


class Outbox:
    """Messages to the device: prepared by the host, one bounce slot each, then the engine's."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._ring = Ring()

    def send(
        self, start: float, stream: int, nbytes: int, engine: float, pieces: list[tuple[int, float]]
    ) -> tuple[float, float]:
        """A copy in `pieces`: bytes of each, and the seconds the host takes to prepare them.

        `engine` is what the engine takes for the whole. Returns when the host has put the last
        message into its slot, and when the engine is done with it. Host and engine work message by
        message, at constant rates within a piece: so the ends of the pieces say it all.
        """
        ring, host = self._ring, start
        end = start
        for part, seconds in pieces:
            count = messages(part)
            busy = engine * part / nbytes
            host = max(host, ring.left(Ring.SLOTS))
            first = host + seconds * (CHUNK / part if part > CHUNK else 1.0)
            host += seconds
            tail = busy * (part - (count - 1) * CHUNK) / part
            end = self._timeline.stream_in(stream, _H2D, first, busy, host + tail)
            ring.fill(count, end, busy / count)
            host = max(host, ring.left(Ring.SLOTS + 1))
        return host, end


class _Seconds(dict[int, float]):
    """A curve, remembered: programs repeat their sizes."""

    def __init__(self, curve: Curve) -> None:
        super().__init__()
        self._curve = curve

    def __missing__(self, nbytes: int) -> float:
        seconds = self[nbytes] = self._curve.microseconds(nbytes) * 1e-6
        return seconds
