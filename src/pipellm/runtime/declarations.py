"""What a program says of its host memory, and the storages kept for as long as it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, UntypedStorage
    from torch.utils.weak import WeakTensorKeyDictionary

Span = tuple[int, int]
"""Address of the first byte, address behind the last."""


@dataclass(slots=True)
class _Kept:
    storage: UntypedStorage
    spans: list[Span]


class Declarations:
    """One thing that can be said of bytes of host memory.

    It is said of bytes: every tensor that shows them is meant, and to take it back through any of
    them takes it back for the bytes that this one shows. The storage is kept alive, for freed
    memory becomes somebody else's. What was said of a tensor that has got other memory since
    (`parameter.data = ...`) can still be taken back through that tensor.

    `add` and `remove` tell the native core, by address and length.
    """

    def __init__(
        self, add: Callable[[int, int], object], remove: Callable[[int, int], object]
    ) -> None:
        self._add = add
        self._remove = remove
        self._kept: dict[int, _Kept] = {}  # by where the storage began
        self._said: WeakTensorKeyDictionary | None = None  # of a tensor: storages' starts, spans

    def declare(self, tensor: Tensor) -> None:
        """Says it of the tensor's bytes, anew if it was said before."""
        self._end_what_was_released()
        start, end = span = _span(tensor)
        if start == end:
            return
        storage = tensor.untyped_storage()
        self._add(start, end - start)
        kept = self._kept.setdefault(storage.data_ptr(), _Kept(storage, []))
        kept.spans = [*_without(kept.spans, span), span]
        said = self._of_tensors()
        said[tensor] = {*said.get(tensor, ()), (storage.data_ptr(), span)}

    def withdraw(self, tensor: Tensor) -> None:
        """Takes it back; nothing happens where it was never said."""
        self._end_what_was_released()
        taken_back = {(tensor.untyped_storage().data_ptr(), _span(tensor))}
        for start, span in taken_back | self._of_tensors().pop(tensor, set()):
            self._end(start, span)

    def _end(self, storage: int, span: Span) -> None:
        self._remove(span[0], span[1] - span[0])
        kept = self._kept.get(storage)
        if kept is not None:
            kept.spans = list(_without(kept.spans, span))
            if not kept.spans:
                del self._kept[storage]

    def _end_what_was_released(self) -> None:
        """A storage can be given other memory, or none (`resize_`, `share_memory_`)."""
        for start, kept in list(self._kept.items()):
            if kept.storage.data_ptr() != start:
                for span in kept.spans:
                    self._end(start, span)

    def _of_tensors(self) -> WeakTensorKeyDictionary:
        if self._said is None:
            from torch.utils.weak import WeakTensorKeyDictionary  # the launcher does without torch

            self._said = WeakTensorKeyDictionary()
        return self._said


def _span(tensor: Tensor) -> Span:
    """From the first byte that a host tensor shows to the last, with any gaps between them."""
    last = sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    start = tensor.data_ptr()
    return start, start + (last + 1) * tensor.element_size() if tensor.numel() else start


def _without(spans: list[Span], taken: Span) -> Iterator[Span]:
    """What is left of `spans` outside of `taken`."""
    for start, end in spans:
        for left in ((start, min(end, taken[0])), (max(start, taken[1]), end)):
            if left[0] < left[1]:
                yield left
