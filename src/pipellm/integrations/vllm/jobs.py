"""A job of vLLM's, in pieces: which blocks of the device belong to which chunks of the store.

A chunk holds `blocks_per_chunk` blocks that follow each other in a request. A job names blocks,
group by group of the layers; only its first and its last chunk in a group may be incomplete.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Piece(NamedTuple):
    """Some chunks of one group, moved together."""

    group: int
    chunks: tuple[int, ...]
    blocks: tuple[int | None, ...]
    """`blocks_per_chunk` for each chunk; None where the job leaves one out."""


def pieces(
    blocks: Sequence[int],
    group_sizes: Sequence[int],
    block_indices: Sequence[int],
    chunks: Sequence[int],
    blocks_per_chunk: int,
    at_most: Sequence[int],
) -> Iterator[Piece]:
    """Cuts a job into pieces of `at_most[group]` chunks.

    `block_indices` says for each group where in its request the first block is. Raises ValueError
    if the chunks are not as many as the blocks need.
    """
    next_block = next_chunk = 0
    for group, (size, index) in enumerate(zip(group_sizes, block_indices, strict=True)):
        if size == 0:
            continue
        before = index % blocks_per_chunk
        count = -(-(before + size) // blocks_per_chunk)
        after = count * blocks_per_chunk - before - size
        own: list[int | None] = [None] * before
        own += blocks[next_block : next_block + size]
        own += [None] * after
        of_group = chunks[next_chunk : next_chunk + count]
        next_block += size
        next_chunk += count
        for first in range(0, len(of_group), at_most[group]):
            last = first + at_most[group]
            yield Piece(
                group,
                tuple(of_group[first:last]),
                tuple(own[first * blocks_per_chunk : last * blocks_per_chunk]),
            )
    if next_chunk != len(chunks) or next_block != len(blocks):
        raise ValueError(f"{len(blocks)} blocks do not fill {len(chunks)} chunks")
