"""What is not home, byte by byte."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from pipellm.prefetch.homeward import Homeward


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 12)), min_size=1, max_size=8), st.data()
)
def test_read_backs_may_overlap_and_land_in_parts_in_any_order(
    keys: list[tuple[int, int]], data: st.DataObject
) -> None:
    homeward = Homeward()
    missing = [0] * 40
    parts = []
    for address, nbytes in keys:
        homeward.expect((address, nbytes))
        cut = data.draw(st.integers(0, nbytes - 1))
        parts += [(address, cut)] if cut else []
        parts.append((address + cut, nbytes - cut))
        for byte in range(address, address + nbytes):
            missing[byte] += 1
    random.Random(data.draw(st.integers(0, 99))).shuffle(parts)
    for address, nbytes in parts:
        for byte in range(40):
            assert homeward.covers((byte, 1)) == bool(missing[byte])
        homeward.landed((address, nbytes))
        for byte in range(address, address + nbytes):
            missing[byte] -= 1
    assert not homeward.covers((0, 40))
