"""A block's bytes: scattered over the layers' tensors on the device, in one row everywhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipellm.errors import UserError

if TYPE_CHECKING:
    from vllm.v1.kv_offload.base import CanonicalKVCaches

    from pipellm.integrations.vllm.jobs import Piece


class Pages:
    """The KV cache of a worker as its device sees it."""

    def __init__(self, kv_caches: CanonicalKVCaches, blocks_per_chunk: int, index: int) -> None:
        tensors = [_on_device(canonical.tensor, index) for canonical in kv_caches.tensors]
        self.device = tensors[0].device
        # Indices are picked from these on the device: it takes no crossing to bring them there.
        self._numbers = torch.arange(max(len(tensor) for tensor in tensors), device=self.device)
        self._tensors = [
            [
                (tensors[i], nbytes)
                for i, nbytes in {ref.tensor_idx: ref.page_size_bytes for ref in refs}.items()
            ]
            for refs in kv_caches.group_data_refs
        ]
        self._block_bytes = [sum(nbytes for _, nbytes in group) for group in self._tensors]
        self.chunk_bytes = [nbytes * blocks_per_chunk for nbytes in self._block_bytes]
        """How long a chunk's row is, by group."""

    def gather(self, piece: Piece, rows: Tensor) -> None:
        """Brings the blocks of a piece together in `rows`, one row per chunk.

        Where the piece leaves a block out, its place in the row gets bytes that nobody will read.
        """
        some = next(block for block in piece.blocks if block is not None)
        indices = self._indices([some if block is None else block for block in piece.blocks])
        torch.cat(
            [
                tensor[:, :nbytes].index_select(0, indices)
                for tensor, nbytes in self._tensors[piece.group]
            ],
            dim=1,
            out=self._by_block(piece, rows),
        )

    def scatter(self, piece: Piece, rows: Tensor) -> None:
        """Puts the rows of a piece's chunks where its blocks belong."""
        present = [i for i, block in enumerate(piece.blocks) if block is not None]
        by_block = self._by_block(piece, rows)
        if len(present) < len(piece.blocks):
            by_block = torch.stack([by_block[i] for i in present])
        indices = self._indices([block for block in piece.blocks if block is not None])
        start = 0
        for tensor, nbytes in self._tensors[piece.group]:
            tensor[:, :nbytes].index_copy_(0, indices, by_block[:, start : start + nbytes])
            start += nbytes

    def _indices(self, blocks: list[int]) -> Tensor:
        return torch.stack([self._numbers[block] for block in blocks])

    def _by_block(self, piece: Piece, rows: Tensor) -> Tensor:
        return rows.view(len(piece.blocks), self._block_bytes[piece.group])


def _on_device(tensor: Tensor, index: int) -> Tensor:
    """A CPU build of vLLM computes in host memory: that plays the emulated GPU's memory."""
    if tensor.is_cuda:
        return tensor
    from pipellm.gpu.emulated.device_memory import as_device_memory

    try:
        return as_device_memory(tensor, index)
    except RuntimeError as error:
        raise UserError(
            "vLLM computes on the CPU and there is no emulated GPU under it: start it with "
            "`pipellm run`"
        ) from error
