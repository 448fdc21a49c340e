"""The caller's word that some memory is to be left alone until a copy of it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipellm.gpu import emulated
from pipellm.runtime.declarations import Declarations

if TYPE_CHECKING:
    from torch import Tensor

_never = Declarations(
    add=lambda address, nbytes: emulated.driver().never_ahead(address, nbytes),
    remove=lambda address, nbytes: emulated.driver().allow_ahead(address, nbytes),
)


def never_ahead(*tensors: Tensor) -> None:
    """Has these host tensors sealed when they are copied, never before, until `allow_ahead`.

    For memory that changes behind the program's back, such as buffers registered with io_uring or
    for RDMA and buffers that direct I/O reads into: what is sealed of them ahead is seldom worth
    anything. From the return of this call on nothing of PipeLLM reads them ahead of a copy. It is
    meant for their bytes, so for every view of them, and their storage is kept alive. Raises
    ValueError for a tensor that is not dense host memory, RuntimeError in a process without an
    emulated GPU.
    """
    import torch  # not above: the launcher imports this package, and does without torch

    emulated.driver()
    for tensor in tensors:
        if tensor.device.type != "cpu" or tensor.layout != torch.strided:
            raise ValueError("only dense tensors in host memory can be sealed ahead or not")
    for tensor in tensors:
        _never.declare(tensor)


def allow_ahead(*tensors: Tensor) -> None:
    """Takes `never_ahead` back for these bytes. Others are left as they are."""
    for tensor in tensors:
        _never.withdraw(tensor)
