"""A job is cut into pieces that hold each of its blocks once, where its chunks want it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipellm.integrations.vllm.jobs import pieces


@given(
    groups=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=3),
    blocks_per_chunk=st.integers(1, 4),
    at_most=st.integers(1, 5),
)
def test_every_block_is_in_its_place_of_its_chunk(
    groups: list[tuple[int, int]], blocks_per_chunk: int, at_most: int
) -> None:
    sizes = [size for size, _ in groups]
    indices = [index for _, index in groups]
    blocks = list(range(100, 100 + sum(sizes)))
    place_of: dict[int, tuple[int, int, int]] = {}  # block -> group, chunk, place in the chunk
    chunks: list[int] = []
    block = iter(blocks)
    for group, (size, index) in enumerate(groups):
        first = index // blocks_per_chunk
        for number in range(index, index + size):
            chunk = 1000 * group + number // blocks_per_chunk - first
            if chunk not in chunks:
                chunks.append(chunk)
            place_of[next(block)] = group, chunk, number % blocks_per_chunk
    cut = list(pieces(blocks, sizes, indices, chunks, blocks_per_chunk, [at_most] * len(groups)))
    found = {
        held: (piece.group, piece.chunks[i // blocks_per_chunk], i % blocks_per_chunk)
        for piece in cut
        for i, held in enumerate(piece.blocks)
        if held is not None
    }
    assert found == place_of
    assert [chunk for piece in cut for chunk in piece.chunks] == chunks
    assert all(len(piece.chunks) <= at_most for piece in cut)
    assert all(len(piece.blocks) == len(piece.chunks) * blocks_per_chunk for piece in cut)


def test_chunks_that_the_blocks_do_not_fill_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fill"):
        list(pieces([1, 2], [2], [0], [7, 8], 2, [4]))
