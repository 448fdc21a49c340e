"""Which buffers are worth sealing ahead, judged by what became of it before."""

from __future__ import annotations

from dataclasses import dataclass

from pipellm.predict.ranges import Range, Ranges

_WRITES = 2
_LONGEST = 6


@dataclass(slots=True)
class _Doubt:
    writes: int = 0  # since it was requested last
    stale: int = 0  # requests in a row that found it changed
    skip: int = 0  # requests to let pass before it is tried again
    found: bool = False  # by its last request, and nobody has said that it had changed
    unfit: bool = False


class Trust:
    """Remembers the buffers that disappointed.

    A buffer that is rewritten before each request is tried again after 1, 3, 7, ... 63 requests.
    One that is written to while it waits gets a second try, then none until it has been requested.
    Both bound what a busy buffer can waste. One that cannot be watched is not tried again before
    its memory is freed.
    """

    def __init__(self, limit: int = 4096) -> None:
        self._ranges = Ranges(limit)
        self._doubts: dict[Range, _Doubt] = {}

    def allows(self, key: Range) -> bool:
        """Whether to seal this buffer ahead."""
        doubt = self._doubts.get(key)
        return doubt is None or not (doubt.unfit or doubt.skip or doubt.writes >= _WRITES)

    def written(self, key: Range) -> None:
        """It changed while it was sealed and not yet requested."""
        self._doubt(key).writes += 1

    def stale(self, key: Range) -> None:
        """Its request found it changed since it was sealed."""
        doubt = self._doubt(key)
        doubt.stale = min(doubt.stale + 1, _LONGEST)
        doubt.skip = (1 << doubt.stale) - 1
        doubt.writes = 0
        doubt.found = False

    def found(self, key: Range) -> None:
        """Its request found it; whether as it was sealed is seen later. It was, unless `stale` is
        called before the next request."""
        doubt = self._doubts.get(key)
        if doubt is None:
            return
        if doubt.found:
            self._forget(key)
        else:
            doubt.found = True

    def clean(self, key: Range) -> None:
        """Its request found it as it was sealed."""
        if key in self._doubts:
            self._forget(key)

    def missed(self, key: Range) -> None:
        """It was requested and had not been sealed."""
        doubt = self._doubts.get(key)
        if doubt:
            doubt.writes = 0
            doubt.skip = max(doubt.skip - 1, 0)

    def unfit(self, key: Range) -> None:
        """It cannot be watched."""
        self._doubt(key).unfit = True

    def freed(self, address: int, nbytes: int) -> None:
        """Whatever comes here next is another buffer."""
        for key in self._ranges.overlapping(address, nbytes):
            self._forget(key)

    def _doubt(self, key: Range) -> _Doubt:
        if key not in self._doubts:
            self._doubts[key] = _Doubt()
            crowded_out = self._ranges.add(key)
            if crowded_out is not None:
                del self._doubts[crowded_out]
        return self._doubts[key]

    def _forget(self, key: Range) -> None:
        self._ranges.discard(key)
        del self._doubts[key]
