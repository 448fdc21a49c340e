"""The caller's word that a tensor will not change: the second way to have it sealed ahead.

For memory that cannot be watched (a file mapped for sharing, say) it is the only one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipellm.gpu import emulated
from pipellm.runtime.declarations import Declarations

if TYPE_CHECKING:
    from torch import Tensor

_immutable = Declarations(
    add=lambda address, nbytes: emulated.driver().declare_immutable(address, nbytes),
    remove=lambda address, nbytes: emulated.driver().withdraw_immutable(address, nbytes),
)


def declare_immutable(*tensors: Tensor) -> None:
    """Promises that nobody changes these host tensors until `withdraw_immutable`.

    Not the program, nor anybody else: not through a file or memory that they share, nor through
    pages that were pinned (registered with io_uring or for RDMA, or read into by direct I/O), which
    nothing can watch. The promise is one about their bytes, so it holds for every view of them, and
    their storage is kept alive. To declare them again makes a new promise: what was sealed under
    the old one is not sent.

    A promise that is broken costs speed alone: what was sealed is compared with what the memory
    holds before it is sent. Raises ValueError for a tensor that is not contiguous host memory,
    RuntimeError in a process without an emulated GPU.
    """
    emulated.driver()
    for tensor in tensors:
        if tensor.device.type != "cpu" or not tensor.is_contiguous():
            raise ValueError("only contiguous tensors in host memory can be declared immutable")
    for tensor in tensors:
        _immutable.declare(tensor)


def withdraw_immutable(*tensors: Tensor) -> None:
    """These bytes may change again: call it before they do. Others are left as they are.

    Any view of them will do, and so does a tensor that was declared and has got other memory since
    (`parameter.data = ...`, `module.to(...)`): then the promise about the old memory ends too.
    """
    for tensor in tensors:
        _immutable.withdraw(tensor)
