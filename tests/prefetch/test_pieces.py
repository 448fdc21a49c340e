"""The planner's picture of the prefetch buffer."""

from __future__ import annotations

from pipellm.prefetch.pieces import Piece, Pieces


def test_pieces_take_whole_units_of_device_memory_until_they_end() -> None:
    pieces = Pieces()
    short, long = Piece((0, 1), (0, 1)), Piece((1024, 513), (1024, 513))
    pieces.add(short)
    pieces.add(long)
    assert (pieces.nbytes, pieces.queued_nbytes) == (512 + 1024, 512 + 1024)
    pieces.arrived(short)
    assert (pieces.nbytes, pieces.queued_nbytes) == (512 + 1024, 1024)
    assert (pieces.there(), pieces.queue()) == ([short], [long])
    pieces.end(short)
    pieces.end(long)
    assert (len(pieces), pieces.nbytes, pieces.queued_nbytes) == (0, 0, 0)


def test_what_shares_a_byte_with_a_range_is_found() -> None:
    pieces = Pieces()
    whole = [Piece((start, 100), (0, 300)) for start in (0, 100, 200)]
    for piece in whole:
        pieces.add(piece)
    assert pieces.touching(100, 100) == whole[1:2]
    assert pieces.touching(99, 2) == whole[:2]
    assert pieces.touching(199, 500) == whole[1:]
    assert pieces.touching(300, 1) == []
