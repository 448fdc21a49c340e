"""The worker's half: does the jobs, and tells the runtime what the scheduler expects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from vllm.v1.kv_offload.base import OffloadingWorker, TransferResult

from pipellm.integrations.vllm.jobs import Piece, pieces
from pipellm.integrations.vllm.line import BUFFER_BYTES, Job, Line, Loads, Stores
from pipellm.integrations.vllm.pages import Pages
from pipellm.runtime.expectation import expect

if TYPE_CHECKING:
    from torch import Tensor
    from vllm.v1.kv_offload.base import CanonicalKVCaches, GPULoadStoreSpec

    from pipellm.integrations.vllm.chunks import Chunks, Groups

_PAGE = 4096


class ChannelWorker(OffloadingWorker):  # type: ignore[misc]
    """Moves blocks between the device and a store in host memory.

    A chunk is one copy, all layers of its blocks in one row, to and from the same place in the
    store: what comes back is told apart by its address. Nothing here fails but the channel itself,
    whose errors are not caught: they end the engine.
    """

    def __init__(
        self, kv_caches: CanonicalKVCaches, chunks: int, blocks_per_chunk: int, rank: int
    ) -> None:
        index = rank % max(torch.cuda.device_count(), 1)
        self._pages = Pages(kv_caches, blocks_per_chunk, index)
        self._blocks_per_chunk = blocks_per_chunk
        longest = max(self._pages.chunk_bytes)
        self._at_most = [max(1, BUFFER_BYTES // nbytes) for nbytes in self._pages.chunk_bytes]
        self._store = _host_memory(chunks, longest)
        buffer_bytes = max(BUFFER_BYTES, longest)
        self._stores = Stores(self._pages, self._row, buffer_bytes)
        self._loads = Loads(self._pages, self._row, buffer_bytes)
        self._length: dict[int, int] = {}  # of each chunk that was stored

    def submit_store(self, job_id: int, src_spec: GPULoadStoreSpec, dst_spec: Chunks) -> bool:
        for piece in self._submit(self._stores, job_id, src_spec, dst_spec):
            nbytes = self._pages.chunk_bytes[piece.group]
            self._length.update(dict.fromkeys(piece.chunks, nbytes))
        self._expect(dst_spec.expected)
        return True

    def submit_load(
        self, job_id: int, src_spec: Chunks, dst_spec: GPULoadStoreSpec, expedited: bool = False
    ) -> bool:
        self._expect(src_spec.expected)
        self._submit(self._loads, job_id, dst_spec, src_spec)
        return True

    def get_finished(self) -> list[TransferResult]:
        return [
            TransferResult(job.id, True, job.nbytes, job.seconds)
            for line in (self._stores, self._loads)
            for job in line.finished()
        ]

    def wait(self, job_ids: set[int]) -> None:
        self._stores.wait(job_ids)
        self._loads.wait(job_ids)

    def shutdown(self) -> None:
        self._stores.drain()
        self._loads.drain()

    def _submit(
        self, line: Line, job_id: int, device_side: GPULoadStoreSpec, host_side: Chunks
    ) -> list[Piece]:
        cut = list(
            pieces(
                device_side.block_ids.tolist(),
                device_side.group_sizes,
                device_side.block_indices,
                host_side.chunk_ids.tolist(),
                self._blocks_per_chunk,
                self._at_most,
            )
        )
        nbytes = sum(len(piece.chunks) * self._pages.chunk_bytes[piece.group] for piece in cut)
        line.submit(Job(job_id, len(cut), nbytes), cut)
        return cut

    def _row(self, chunk: int, nbytes: int) -> Tensor:
        return self._store[chunk, :nbytes]

    def _expect(self, groups: Groups | None) -> None:
        if groups is not None:
            expect(
                *([self._row(chunk, self._length[chunk]) for chunk in group] for group in groups),
                device=self._pages.device.index,
            )


def _host_memory(chunks: int, longest: int) -> Tensor:
    """A row for each chunk, on pages of its own: a write to one is no write to its neighbour.

    Pinned only where pinned memory is what it says it is. Under confidential computing as shipped
    it is not, and neither faster nor asynchronous; pageable memory then needs no detour.
    """
    pins = torch.empty(1, dtype=torch.int8, pin_memory=True).is_pinned()
    stride = -(-longest // _PAGE) * _PAGE
    return torch.empty((chunks, stride), dtype=torch.int8, pin_memory=pins)
