"""What the scheduler's half tells the worker's half about chunks of the host store."""

from __future__ import annotations

from collections.abc import Sequence

from vllm.v1.kv_offload.cpu.common import CPULoadStoreSpec

Groups = tuple[tuple[int, ...], ...]
"""Chunks that will be loaded together, group by group."""


class Chunks(CPULoadStoreSpec):  # type: ignore[misc]
    """The chunks of one job, and what the scheduler expects to load from here on.

    That is this job, if it is a load, and what will come after it.
    """

    def __init__(self, chunks: Sequence[int], expected: Groups | None = None) -> None:
        super().__init__(list(chunks))
        self.expected = expected
        """None: what was said last still stands."""
