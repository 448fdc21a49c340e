"""The caller's word on what it will copy next.

A program that schedules its own swaps (a serving system with its queue of requests) often knows
what no pattern shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def expect(*groups: Sequence[Tensor], device: int = 0) -> None:
    """Says which host tensors will be copied to `device` next, whole, and in which order.

    A group is what will be copied together. What was said before is forgotten. It is a hint: if it
    turns out to be wrong the copies are as right as ever, only slower; and nothing happens where
    nothing is sealed ahead. Raises ValueError for a tensor that is not contiguous host memory.
    """
    ranges = [[_range(tensor) for tensor in group] for group in groups]
    from pipellm.gpu import emulated

    driver = emulated.installed()
    context = driver.context_if_used(device) if driver is not None else None
    if context is not None:
        context.expect(ranges)


def _range(tensor: Tensor) -> tuple[int, int]:
    if tensor.device.type != "cpu" or not tensor.is_contiguous():
        raise ValueError("only contiguous tensors in host memory can be expected")
    return tensor.data_ptr(), tensor.nbytes
