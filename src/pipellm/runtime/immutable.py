"""The caller's word that a tensor will not change: the second way to be sure of a plaintext.

For memory that cannot be watched (a file mapped for sharing, say) it is the only way to have it
sealed ahead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipellm.gpu import emulated

if TYPE_CHECKING:
    from torch import Tensor

# Kept alive: their memory must not become somebody else's while the promise stands.
_declared: dict[int, Tensor] = {}


def declare_immutable(*tensors: Tensor) -> None:
    """Promises that nobody changes these host tensors until `withdraw_immutable`.

    Not the program, nor anybody else through a file or memory that they share. The tensors are kept
    alive. A promise that is broken makes the device receive what a tensor held before. Raises
    ValueError for a tensor that is not contiguous host memory, RuntimeError in a process without an
    emulated GPU.
    """
    for tensor in tensors:
        if tensor.device.type != "cpu" or not tensor.is_contiguous():
            raise ValueError("only contiguous tensors in host memory can be declared immutable")
    for tensor in tensors:
        emulated.driver().declare_immutable(tensor.data_ptr(), tensor.nbytes)
        _declared[tensor.data_ptr()] = tensor


def withdraw_immutable(*tensors: Tensor) -> None:
    """The tensors may change again: call it before they do. Others are left as they are."""
    for tensor in tensors:
        emulated.driver().withdraw_immutable(tensor.data_ptr())
        _declared.pop(tensor.data_ptr(), None)
