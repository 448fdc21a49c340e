"""Each pattern finds what it is made for, and claims nothing elsewhere."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipellm.predict.echo import Echo
from pipellm.predict.prediction import SURE, Pattern
from pipellm.predict.repetitive import By, Repetitive
from pipellm.predict.returns import Returns
from pipellm.predict.told import Told
from pipellm.transfers import Direction, Transfer

MIB = 1 << 20


def swap_in(buffer: int, nbytes: int = MIB) -> Transfer:
    return Transfer(Direction.H2D, buffer * 64 * MIB, nbytes, 0)


def swap_out(buffer: int, nbytes: int = MIB) -> Transfer:
    return Transfer(Direction.D2H, buffer * 64 * MIB, nbytes, 0)


def right(pattern: Pattern, transfers: Iterable[Transfer]) -> int:
    """How many of the swap-ins were the next predicted, with confidence."""
    count = 0
    for transfer in transfers:
        if transfer.direction is Direction.H2D and pattern.confidence >= SURE:
            for item in pattern.predict(1):
                count += (item.address, item.nbytes) == (transfer.address, transfer.nbytes)
        pattern.observe(transfer, 0)
    return count


# Repetitive ------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 30), min_size=1, max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_period_is_predicted_for_ever_once_it_was_seen_often_enough(period: list[int]) -> None:
    pattern = Repetitive()
    right(pattern, map(swap_in, period * (4 + 80 // len(period))))
    assert right(pattern, map(swap_in, period)) == len(period)


def test_a_period_of_distinct_buffers_is_known_after_one_round() -> None:
    pattern = Repetitive()
    period = list(range(197))
    right(pattern, map(swap_in, period))
    assert right(pattern, map(swap_in, period)) >= 0.97 * len(period)


def test_an_irregular_order_inside_the_period_does_not_matter() -> None:
    zero3 = [*range(26), 0, 13, 12, 8, 9, 11, 7, 10, 6, 5]  # as DeepSpeed was seen to do it
    pattern = Repetitive()
    right(pattern, map(swap_in, zero3 * 3))
    assert right(pattern, map(swap_in, zero3 * 5)) == 5 * len(zero3)


def test_forward_and_backward_are_told_apart() -> None:
    step = [*range(24), *range(23, -1, -1)]
    pattern = Repetitive()
    right(pattern, map(swap_in, step * 2))
    assert right(pattern, map(swap_in, step * 5)) == 5 * len(step)


def test_a_new_phase_is_known_within_one_period_and_the_old_one_is_not_forgotten() -> None:
    first, second = list(range(50)), list(range(100, 160))
    pattern = Repetitive()
    right(pattern, map(swap_in, first * 4))
    right(pattern, map(swap_in, second))
    assert right(pattern, map(swap_in, second)) >= len(second) - 4
    assert right(pattern, map(swap_in, first)) >= len(first) - 4


def test_what_is_left_out_or_put_in_costs_a_few_predictions_and_not_the_period() -> None:
    rng = random.Random(1)
    pattern = Repetitive()
    period = list(range(60))
    right(pattern, map(swap_in, period * 3))
    noisy: list[int] = []
    for buffer in period * 20:
        noisy += [] if rng.random() < 0.02 else [buffer]
        noisy += [rng.randrange(60)] if rng.random() < 0.02 else []
    assert right(pattern, map(swap_in, noisy)) >= 0.9 * len(noisy)


def test_buffers_that_are_elsewhere_every_time_are_predicted_by_their_sizes() -> None:
    sizes = [((i * 7) % 5 + 1) * MIB for i in range(40)]
    place, size = Repetitive(By.PLACE), Repetitive(By.SIZE)
    for number in range(6):
        for i, nbytes in enumerate(sizes):
            transfer = swap_in(1000 * number + i, nbytes)
            if number >= 3:
                assert place.confidence < SURE
                [item] = size.predict(1)
                assert size.confidence >= SURE
                assert (item.address, item.nbytes) == (None, nbytes)
            place.observe(transfer, 0)
            size.observe(transfer, 0)


def test_a_place_whose_buffer_is_another_every_time_does_not_hide_the_others() -> None:
    pattern = Repetitive()
    fresh = iter(range(10_000, 20_000))
    rounds = [[next(fresh) if i % 5 == 4 else i for i in range(50)] for _ in range(12)]
    for one in rounds[:4]:
        right(pattern, map(swap_in, one))
    assert [right(pattern, map(swap_in, one)) for one in rounds[4:]] == [40] * 8
    assert [item.address for item in pattern.predict(50)].count(None) == 10


@given(st.integers(1, 40), st.permutations(range(1, 20)))
@settings(max_examples=100, deadline=None)
def test_a_period_is_found_after_one_buffer_that_came_again_and_again(
    times: int, period: list[int]
) -> None:
    """What took that buffer's place is taken for another name of it, at first."""
    pattern = Repetitive()
    right(pattern, map(swap_in, [0] * times + period * 3))
    assert right(pattern, map(swap_in, period * 2)) == 2 * len(period)


@given(st.lists(st.integers(0, 5), max_size=300), st.integers(2, 40))
@settings(max_examples=100, deadline=None)
def test_the_past_is_bounded_and_what_lies_ahead_is_always_in_it(
    sequence: list[int], capacity: int
) -> None:
    echo = Echo(capacity)
    for symbol in sequence:
        echo.observe(symbol)
        ahead = echo.ahead(70)
        assert len(ahead) in (0, 70)
        assert all(echo.count - capacity <= index < echo.count for index in ahead)
        assert all(0 <= echo.symbol(index) <= 5 for index in ahead)
    assert all(len(seen) <= capacity for seen in echo._seen)


# Returns ---------------------------------------------------------------------------------------

KINDS = pytest.mark.parametrize("newest_first", [True, False], ids=["lifo", "fifo"])


@KINDS
def test_what_was_swapped_out_is_expected_back(newest_first: bool) -> None:
    pattern = Returns(newest_first=newest_first)
    expected = total = 0
    for number in range(20):
        bursts = [[1000 * number + 10 * i + j for j in range(4)] for i in range(5)]
        for burst in bursts:
            right(pattern, map(swap_out, burst))
            pattern.sync()
        for burst in bursts[::-1] if newest_first else bursts:
            expected += right(pattern, map(swap_in, burst))
            total += len(burst)
    assert expected >= 0.97 * total


@KINDS
def test_what_never_returns_does_not_stand_in_the_way(newest_first: bool) -> None:
    pattern = Returns(newest_first=newest_first, bursts=False)
    rng = random.Random(3)
    for number in range(50):
        buffers = [100 * number + i for i in range(20)]
        right(pattern, map(swap_out, buffers))
        back = buffers[::-1] if newest_first else buffers
        right(pattern, [swap_in(buffer) for buffer in back if rng.random() < 0.9])
    assert len(pattern.predict(1000)) <= 20
    right(pattern, map(swap_out, range(10_000, 10_020)))
    back = list(range(10_019, 9_999, -1)) if newest_first else list(range(10_000, 10_020))
    assert right(pattern, map(swap_in, back)) >= 15


def test_a_return_from_deep_inside_is_an_exception() -> None:
    pattern = Returns(newest_first=True, bursts=False)
    for number in range(5):
        right(pattern, map(swap_out, range(100 * number, 100 * number + 20)))
        right(pattern, map(swap_in, range(100 * number + 19, 100 * number - 1, -1)))
    right(pattern, map(swap_out, range(1000, 1050)))
    right(pattern, [swap_in(1005)])
    assert [item.address for item in pattern.predict(3)] == [
        swap_in(buffer).address for buffer in (1049, 1048, 1047)
    ]


@given(
    st.lists(st.tuples(st.sampled_from("oois"), st.integers(0, 20)), max_size=300),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_what_is_expected_is_out_and_expected_once(
    events: list[tuple[str, int]], newest_first: bool, bursts: bool
) -> None:
    pattern = Returns(newest_first=newest_first, bursts=bursts)
    out: set[int] = set()
    for kind, buffer in events:
        match kind:
            case "o":
                pattern.observe(swap_out(buffer), 0)
                out.add(buffer)
            case "i":
                pattern.observe(swap_in(buffer), 0)
                out.discard(buffer)
            case "s" if buffer % 2:
                pattern.sync()
            case "s":
                pattern.forget(buffer * 64 * MIB, MIB)
                out.discard(buffer)
        places = [item.address for item in pattern.predict(50)]
        assert len(places) == len(set(places))
        assert set(places) <= {swap_in(one).address for one in out}


# Nothing to predict ----------------------------------------------------------------------------


@pytest.mark.parametrize("buffers", [3, 4, 8, 50, 1000])
@pytest.mark.parametrize("name", ["repetitive", "lifo", "fifo", "lifo one by one"])
def test_a_random_order_gives_no_pattern_confidence(name: str, buffers: int) -> None:
    pattern: Pattern = Repetitive()
    if name != "repetitive":
        pattern = Returns(newest_first="lifo" in name, bursts=name != "lifo one by one")
    rng = random.Random(buffers)
    right(pattern, map(swap_out, range(buffers)))
    sure = 0
    for _ in range(2000):
        buffer = rng.randrange(buffers)
        right(pattern, [swap_in(buffer)])
        sure += pattern.confidence >= SURE
        right(pattern, [swap_out(buffer)])
        pattern.sync()
    assert sure <= 20


# Told ------------------------------------------------------------------------------------------


def ranges(*buffers: int) -> list[tuple[int, int]]:
    return [(buffer * 64 * MIB, MIB) for buffer in buffers]


@given(st.lists(st.integers(0, 200), min_size=1, unique=True), st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_what_was_told_is_believed_at_once_and_in_its_order(said: list[int], size: int) -> None:
    groups = [said[first : first + size] for first in range(0, len(said), size)]
    pattern = Told()
    pattern.tell([ranges(*group) for group in groups])
    assert [item.address for item in pattern.predict(1000)] == [at for at, _ in ranges(*said)]
    assert right(pattern, map(swap_in, said)) == len(said)
    assert pattern.predict(1) == []
    assert pattern.confidence == 0, "what has come is no longer expected"


def test_whoever_is_wrong_is_not_believed_until_right_again() -> None:
    pattern = Told()
    for _ in range(4):
        pattern.tell([ranges(1, 2, 3)])
        right(pattern, map(swap_in, [7, 8]))
    assert pattern.confidence < SURE
    for _ in range(8):
        pattern.tell([ranges(1), ranges(2), ranges(3)])
        right(pattern, map(swap_in, [1, 2, 3]))
    pattern.tell([ranges(4)])
    assert pattern.confidence >= SURE


def test_what_was_left_out_is_no_longer_expected() -> None:
    pattern = Told()
    pattern.tell([ranges(1, 2, 3), ranges(4, 5)])
    pattern.observe(swap_in(3), 0)
    assert [item.address for item in pattern.predict(9)] == [at for at, _ in ranges(4, 5)]


def test_saying_the_rest_again_changes_nothing() -> None:
    pattern = Told()
    pattern.tell([ranges(1, 2, 3), ranges(4)])
    pattern.observe(swap_in(1), 5)  # five messages came before the group
    before = pattern.predict(9)
    pattern.tell([ranges(2, 3), ranges(4)])
    assert pattern.predict(9) == before
    assert [item.gap for item in before] == [0, 0, 5]


def test_swap_outs_and_freed_buffers_do_not_confuse_what_was_told() -> None:
    pattern = Told()
    pattern.tell([ranges(1, 2, 3)])
    pattern.observe(swap_out(9), 0)
    pattern.forget(*ranges(1)[0])
    assert right(pattern, map(swap_in, [2])) == 1
    pattern.forget(*ranges(3)[0])
    pattern.tell([ranges(4)])
    assert right(pattern, map(swap_in, [4])) == 1
