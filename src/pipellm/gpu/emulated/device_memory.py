"""Host memory that plays device memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def as_device_memory(tensor: Tensor, device: int = 0) -> Tensor:
    """A tensor of `cuda:device` over the very bytes of a host tensor, which it keeps alive.

    For programs that compute on the CPU what a GPU would compute (a CPU build of vLLM): what they
    compute on stands for the device's memory, and kernels may run on it as such. The device's own
    operators are nothing else. It is not counted as the device's memory, and copies to or from it
    by the host's name for it do not cross the link. Raises RuntimeError in a process without an
    emulated GPU.
    """
    import torch

    from pipellm.gpu import emulated

    emulated.driver()  # raises
    alias: Tensor = torch.ops.pipellm.device_alias(tensor, device)
    return alias
