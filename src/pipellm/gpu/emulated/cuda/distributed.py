"""Collectives of device tensors over Gloo.

A CPU build of torch has Gloo for CUDA tensors except where it reduces them: those collectives are
registered and crash. Here they go through the host, and are over when the call returns.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

REDUCING = (
    "allreduce_",
    "allreduce_coalesced_",
    "_reduce_scatter_base_",
    "reduce_scatter_",
    "reduce_scatter_tensor_coalesced_",
)


def through_the_host(name: str) -> Callable[..., Any]:
    """The collective `name` on host copies of its device tensors, which then get the results."""
    operator = getattr(torch.ops.c10d, name)

    def collective(*arguments: Any) -> Any:
        copies: list[tuple[torch.Tensor, torch.Tensor]] = []

        def to_host(tensor: torch.Tensor) -> torch.Tensor:
            copies.append((tensor, tensor.cpu()))
            return copies[-1][1]

        def to_device(result: torch.Tensor) -> torch.Tensor:
            return next(tensor for tensor, copy in copies if copy is result)

        results = operator(*tree_map_only(torch.Tensor, to_host, arguments))
        work = results[-1] if isinstance(results, tuple) else results
        torch.distributed.Work.unbox(work).wait()
        for tensor, copy in copies:
            tensor.copy_(copy)
        _last_copies[:] = [copy for _, copy in copies]
        return tree_map_only(torch.Tensor, to_device, results)

    return collective


_last_copies: list[torch.Tensor] = []
"""Of the last collective. Gloo's thread lets go of them a moment after it has said that it is done;
if it were the last to do so, and the interpreter had ended by then, the process would abort."""


def install() -> None:
    if not torch.distributed.is_available():
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Warning only once for all operators")
        for name in REDUCING:
            collective = through_the_host(name)
            _library.impl(name, collective, "CUDA", allow_override=True)


# Its kernels live as long as it does.
_library = torch.library.Library("c10d", "IMPL")
