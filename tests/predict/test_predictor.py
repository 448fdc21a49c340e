"""The predictor follows whoever is right, lane by lane, and is silent where nobody is."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipellm.predict import Predictor
from pipellm.predict.ranges import Ranges
from pipellm.predict.sizes import SMALL, SWAP, Sizes
from pipellm.transfers import Direction, Transfer

MIB = 1 << 20


def load(buffer: int, nbytes: int = MIB, *, stream: int = 0, blocking: bool = False) -> Transfer:
    return Transfer(Direction.H2D, buffer * 64 * MIB, nbytes, 0, stream=stream, blocking=blocking)


def store(buffer: int) -> Transfer:
    return Transfer(Direction.D2H, buffer * 64 * MIB, MIB, 0)


def foreseen(predictor: Predictor, transfers: Iterable[Transfer]) -> int:
    """How many of these swap-ins were the next predicted, for all streams together."""
    count = 0
    for transfer in transfers:
        ahead = [(item.address, item.nbytes) for item in predictor.predict(1)]
        count += ahead == [(transfer.address, transfer.nbytes)]
        predictor.observe(transfer)
    return count


SMALL_LOAD = load(5000, 2048)


def test_the_small_transfers_before_each_place_of_a_period_are_learned() -> None:
    predictor = Predictor()
    period = [(buffer, buffer % 3) for buffer in range(12)]
    for _ in range(3):
        for buffer, gap in period:
            for _ in range(gap):
                predictor.observe(SMALL_LOAD)
            predictor.observe(load(buffer))
    ahead = predictor.predict(24)
    assert [item.gap for item in ahead] == [gap for _, gap in period] * 2
    predictor.observe(load(0))
    predictor.observe(SMALL_LOAD)
    assert predictor.predict(1)[0].gap == 0, "one of one has come"


def test_the_longer_small_transfers_go_on_the_longer_they_are_expected_to() -> None:
    predictor = Predictor()
    for buffer in [*range(8)] * 3:
        predictor.observe(load(buffer))
    gaps = []
    for _ in range(100):
        predictor.observe(SMALL_LOAD)
        gaps.append(predictor.predict(1)[0].gap)
    assert gaps == list(range(1, 101))


def test_streams_that_take_turns_in_order_are_predicted_in_that_order() -> None:
    predictor = Predictor()
    period = [load(i, stream=i % 3 and 1) for i in range(30)]
    foreseen(predictor, period * 3)
    assert foreseen(predictor, period * 4) == 4 * len(period)


def test_threads_that_race_do_not_disturb_each_others_patterns() -> None:
    predictor = Predictor()
    rng = random.Random(5)
    sides = [[load(100 * side + i, stream=side) for i in range(20)] for side in range(2)]
    at = [0, 0]
    among = total = 0
    for _ in range(2000):
        side = rng.randrange(2)
        transfer = sides[side][at[side] % 20]
        at[side] += 1
        if total > 200:
            among += transfer.address in {item.address for item in predictor.predict(8)}
        total += 1
        predictor.observe(transfer)
    assert among >= 0.9 * (total - 201), "each is among the next few, though its turn is open"


def test_nothing_is_predicted_across_blocking_threads_that_race() -> None:
    predictor = Predictor()
    rng = random.Random(5)
    at = [0, 0]
    predicted = 0
    for number in range(2000):
        side = rng.randrange(2)
        predictor.observe(load(100 * side + at[side] % 20, stream=side, blocking=True))
        at[side] += 1
        predicted += bool(predictor.predict(8)) and number > 100
    assert predicted <= 40


def test_without_care_for_the_order_there_is_no_end_to_what_is_foreseen() -> None:
    predictor = Predictor()
    rng = random.Random(1)
    period = [load(buffer) for buffer in range(50)]
    foreseen(predictor, [transfer for transfer in period * 30 if rng.random() < 0.9])
    coming = [item.address for item in predictor.upcoming(200)]
    assert len(coming) == 200
    assert len(set(coming)) > 40
    assert len(predictor.predict(200)) < 50


def test_without_care_for_the_order_racing_threads_are_foreseen_side_by_side() -> None:
    predictor = Predictor()
    rng = random.Random(1)
    one = [load(buffer, stream=1, blocking=True) for buffer in range(20)]
    other = [load(100 + buffer, stream=2, blocking=True) for buffer in range(20)]
    lanes = {1: one * 20, 2: other * 20}
    for _ in range(700):
        stream = rng.choice([1, 2])
        predictor.observe(lanes[stream].pop(0))
    assert not predictor.predict(20)
    coming = predictor.upcoming(40)
    for stream in (1, 2):
        mine = [item.address for item in coming if item.stream == stream]
        assert len(mine) > 10
        assert mine == [transfer.address for transfer in lanes[stream][: len(mine)]]


def test_weights_and_returns_on_one_stream_keep_their_own_patterns() -> None:
    predictor = Predictor()
    fresh = iter(range(10_000, 90_000))
    hits = total = 0
    for number in range(20):
        out = [next(fresh) for _ in range(6)]
        for buffer in out:
            predictor.observe(store(buffer))
        predictor.sync()
        for i, back in enumerate(out):
            for transfer in (load(2 * i, 2 * MIB), load(2 * i + 1, 2 * MIB), load(back)):
                if number >= 4:
                    hits += foreseen(predictor, [transfer])
                    total += 1
                else:
                    predictor.observe(transfer)
    assert hits >= 0.95 * total


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 3), st.randoms(use_true_random=False))
def test_what_never_returns_does_not_drown_what_always_does(
    passing: int, chance: random.Random
) -> None:
    """ZeRO-3: weights were swapped out once, when they were cut up, and are loaded in every step;
    gradients go out and in through a few buffers; something else goes out and stays away."""
    predictor = Predictor()
    weights = chance.sample(range(24), 24)
    for weight in weights:
        predictor.observe(store(weight))
    for _ in range(20):
        first = chance.randrange(20)
        for weight in range(first, first + chance.randrange(1, 5)):
            predictor.observe(load(weight))
    seen = 0
    for step in range(20):
        gradients = chance.sample(range(1000, 1004), passing)
        traffic = [*map(store, gradients), *map(load, gradients), store(2000 + step)]
        right = foreseen(predictor, [*map(load, weights), *traffic])
        seen += right if step >= 14 else 0
    assert seen >= 0.8 * 6 * len(weights)


def test_a_new_phase_is_followed_within_one_period() -> None:
    predictor = Predictor()
    prefill, decode = [load(i) for i in range(40)], [load(i) for i in range(60, 20, -1)]
    foreseen(predictor, prefill * 3)
    foreseen(predictor, decode)
    assert foreseen(predictor, decode) >= len(decode) - 4


@pytest.mark.parametrize("buffers", [3, 8, 100, 2000])
def test_nothing_is_predicted_in_a_random_order(buffers: int) -> None:
    predictor = Predictor()
    rng = random.Random(buffers)
    claims = 0
    for _ in range(2000):
        buffer = rng.randrange(buffers)
        predictor.observe(load(buffer, (buffer % 7 + 1) * MIB))
        claims += bool(predictor.predict(1))
    assert claims <= 20


def test_freed_memory_is_not_predicted_until_it_is_seen_again() -> None:
    predictor = Predictor()
    period = [load(i) for i in range(10)]
    foreseen(predictor, period * 3)
    predictor.forget(3 * 64 * MIB + 5, 1)
    assert [item.address for item in predictor.predict(10)] == [
        load(i).address for i in range(10) if i != 3
    ]
    foreseen(predictor, period)
    assert load(3).address in [item.address for item in predictor.predict(10)]


def test_confidence_falls_with_distance_and_ends_at_even_odds() -> None:
    predictor = Predictor()
    foreseen(predictor, [load(i) for i in range(10)] * 2)
    confidence = [item.confidence for item in predictor.predict(10_000)]
    assert confidence == sorted(confidence, reverse=True)
    assert 0.5 <= confidence[-1] < confidence[0] < 1
    assert 10 < len(confidence) < 10_000


# Sizes -----------------------------------------------------------------------------------------


def test_the_papers_thresholds_hold_until_something_lies_between() -> None:
    sizes = Sizes()
    assert sizes.is_swap(SWAP)
    assert not sizes.is_swap(SWAP - 1) or sizes.boundary < SWAP
    assert not sizes.is_swap(SMALL)


def test_what_lies_between_belongs_to_the_side_it_is_nearer_to() -> None:
    sizes = Sizes()
    assert sizes.is_swap(64 << 10), "as the KV blocks of a small model"
    sizes = Sizes()
    assert not sizes.is_swap(12 << 10), "as a wide bias"
    assert sizes.is_swap(96 << 10)
    assert not sizes.is_swap(12 << 10)


@given(st.lists(st.integers(1, 1 << 20), max_size=50))
@settings(max_examples=200, deadline=None)
def test_beyond_the_thresholds_nothing_is_in_doubt(seen: list[int]) -> None:
    sizes = Sizes()
    for nbytes in seen:
        swap = sizes.is_swap(nbytes)
        assert SMALL < sizes.boundary <= SWAP
        assert swap or nbytes < SWAP
        assert not swap or nbytes > SMALL


# Ranges ----------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 60), st.integers(1, 20)), max_size=60),
    st.tuples(st.integers(0, 80), st.integers(1, 20)),
)
@settings(max_examples=200, deadline=None)
def test_ranges_are_found_by_any_byte_they_share(
    changes: list[tuple[bool, int, int]], wanted: tuple[int, int]
) -> None:
    ranges, model = Ranges(), set[tuple[int, int]]()
    for adds, address, nbytes in changes:
        if adds:
            ranges.add((address, nbytes))
            model.add((address, nbytes))
        else:
            ranges.discard((address, nbytes))
            model.discard((address, nbytes))
    bytes_wanted = set(range(wanted[0], sum(wanted)))
    expected = {one for one in model if bytes_wanted & set(range(one[0], sum(one)))}
    assert set(ranges.overlapping(*wanted)) == expected
    assert len(ranges) == len(model)


def test_the_oldest_range_makes_room() -> None:
    ranges = Ranges(limit=2)
    assert [ranges.add((i, 1)) for i in range(4)] == [None, None, (0, 1), (1, 1)]
