"""Tells swaps from small transfers."""

from __future__ import annotations

SMALL = 8 << 10
"""Up to here a transfer is small (facts: the paper)."""
SWAP = 128 << 10
"""From here on a transfer is a swap (facts: the paper)."""

_STEPS = 8  # half octaves between the two


class Sizes:
    """The boundary between small transfers and swaps, refined by the sizes seen.

    What lies between the paper's two thresholds belongs to the side it is nearer to: the boundary
    is the upper end of the widest empty stretch between them. With nothing there it is SWAP.
    """

    __slots__ = ("_seen", "boundary")

    def __init__(self) -> None:
        self._seen = [False] * _STEPS
        self.boundary = SWAP
        """Transfers of this many bytes and more are swaps."""

    def is_swap(self, nbytes: int) -> bool:
        """Whether a transfer of `nbytes` is a swap, having seen this one too."""
        if nbytes >= SWAP:
            return True
        if nbytes > SMALL:
            step = _step(nbytes)
            if not self._seen[step]:
                self._seen[step] = True
                self._refine()
        return nbytes >= self.boundary

    def _refine(self) -> None:
        widest, boundary, empty = 0, SWAP, 0
        for step, seen in enumerate([*self._seen, True]):
            if not seen:
                empty += 1
                continue
            if empty and empty >= widest:  # among equals the upper: fewer swaps
                widest, boundary = empty, _floor(step)
            empty = 0
        self.boundary = boundary


def _floor(step: int) -> int:
    """The smallest size in this half octave."""
    octave = SMALL << (step // 2)
    return min(octave + 1 if step % 2 == 0 else octave * 3 // 2, SWAP)


def _step(nbytes: int) -> int:
    octave = ((nbytes - 1) // SMALL).bit_length() - 1
    upper = nbytes >= (SMALL << octave) * 3 // 2
    return min(2 * octave + upper, _STEPS - 1)
