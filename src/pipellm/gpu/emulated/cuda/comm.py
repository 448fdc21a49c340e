"""One tensor over several devices and back: what `torch.nn.DataParallel` stands on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

Streams = Sequence[torch.cuda.Stream | None] | None


def broadcast(tensor: torch.Tensor, devices: Sequence[int]) -> list[torch.Tensor]:
    return [tensor.to(torch.device("cuda", device), non_blocking=True) for device in devices]


def broadcast_out(tensor: torch.Tensor, out: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    for copy in out:
        copy.copy_(tensor, non_blocking=True)
    return out


def broadcast_coalesced(
    tensors: Sequence[torch.Tensor], devices: Sequence[int], buffer_size: int
) -> list[list[torch.Tensor]]:
    """Per device, all the tensors. Between devices a copy costs no bus, so none are joined."""
    return [[broadcast(tensor, [device])[0] for tensor in tensors] for device in devices]


def scatter(
    tensor: torch.Tensor,
    devices: Sequence[int],
    chunk_sizes: Sequence[int] | None,
    dim: int,
    streams: Streams,
) -> list[torch.Tensor]:
    if chunk_sizes is None:
        chunks = tensor.chunk(len(devices), dim)
    else:
        chunks = tensor.split(list(chunk_sizes), dim)
    placed = []
    for i, chunk in enumerate(chunks):
        with torch.cuda.stream(streams[i] if streams else None):
            placed += broadcast(chunk.contiguous(), [devices[i]])
    return placed


def scatter_out(
    tensor: torch.Tensor, out: Sequence[torch.Tensor], dim: int, streams: Streams
) -> Sequence[torch.Tensor]:
    for part, chunk in zip(out, tensor.split([part.size(dim) for part in out], dim), strict=True):
        part.copy_(chunk, non_blocking=True)
    return out


def gather(tensors: Sequence[torch.Tensor], dim: int, device: int | None) -> torch.Tensor:
    """On `device`: the current one where it is None, the host where it is -1."""
    if device == -1:
        where = torch.device("cpu")
    else:
        where = torch.device("cuda", torch.cuda.current_device() if device is None else device)
    return torch.cat([tensor.to(where) for tensor in tensors], dim)


def gather_out(tensors: Sequence[torch.Tensor], out: torch.Tensor, dim: int) -> torch.Tensor:
    for part, tensor in zip(
        out.split([tensor.size(dim) for tensor in tensors], dim), tensors, strict=True
    ):
        part.copy_(tensor)
    return out


def bindings() -> Mapping[str, Callable[..., object]]:
    return {
        "_broadcast": broadcast,
        "_broadcast_out": broadcast_out,
        "_broadcast_coalesced": broadcast_coalesced,
        "_scatter": scatter,
        "_scatter_out": scatter_out,
        "_gather": gather,
        "_gather_out": gather_out,
    }
