"""What is ordered, and what is not."""

from __future__ import annotations

import random

import pytest

from pipellm.predict.ranges import Range
from pipellm.prefetch import News, Planner, What
from tests.prefetch.layer import MIB, QUEUED, TRANSFER, Layer

ROOM = 64 * MIB

checked = pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])


def buffers(count: int, nbytes: int = MIB, start: int = 1 << 40) -> list[Range]:
    """So many, each on pages of its own."""
    return [(start + 2 * i * nbytes, nbytes) for i in range(count)]


def share_found(layer: Layer, requests: list[Range]) -> float:
    """Of the bytes of requests that leave the link time."""
    found = 0
    for key in requests:
        layer.idle()
        found += layer.request(key)
    return found / sum(nbytes for _, nbytes in requests)


def swap_out(layer: Layer, burst: list[Range]) -> None:
    """All of it, and the program waits."""
    for key in burst:
        layer.read_back(key)
    layer.synchronize()
    layer.tell()


def newest_first(layer: Layer, bursts: list[list[Range]]) -> None:
    """Two bursts at a time leave, and return in the other order."""
    for one, other in zip(bursts[::2], bursts[1::2], strict=True):
        swap_out(layer, one)
        swap_out(layer, other)
        share_found(layer, other)
        share_found(layer, one)


def test_told_of_nothing_it_orders_nothing() -> None:
    planner = Planner()
    assert planner.tell([]) == []
    assert planner.tell([News(What.ROOM, 0, ROOM)]) == []
    assert planner.tell([News(What.SYNCHRONIZE)]) == []


def test_what_repeats_is_there_when_it_is_asked_for() -> None:
    layer = Layer(ROOM)
    share_found(layer, buffers(100) * 2)
    assert share_found(layer, buffers(100) * 3) == 1.0


def test_of_what_fits_all_is_there_but_what_was_asked_for_just_now() -> None:
    layer = Layer(ROOM)
    share_found(layer, buffers(30) * 6)
    for key in buffers(30):
        layer.request(key)
        layer.idle()
        assert len(layer.there) >= 26  # a transfer that is not full waits for more


def test_what_was_read_back_last_is_there_first() -> None:
    layer = Layer(16 * MIB)
    stack: list[list[Range]] = []
    found = []
    for count in range(40):
        stack.append(buffers(5, start=(count + 1) << 40))
        swap_out(layer, stack[-1])
        if count % 3 == 2:
            found.append(share_found(layer, stack.pop()))
            layer.synchronize()
    assert found[-5:] == [1.0] * 5


def test_small_pieces_share_transfers_and_no_transfer_is_long() -> None:
    layer = Layer(ROOM)
    share_found(layer, buffers(300, 200 << 10) * 4)
    assert layer.pieces_ordered > 8 * layer.transfers


def test_a_long_buffer_comes_in_parts_and_is_found_as_far_as_it_has_come() -> None:
    layer = Layer(ROOM)
    long = buffers(6, 10 * TRANSFER + 1)
    for key in long * 3:
        layer.request(key)
    layer.transfer(2)
    assert layer.request(long[0]) == 2 * TRANSFER
    assert not [piece for piece in layer.queued if long[0][0] <= piece[0] < long[1][0]]


def test_a_random_order_is_not_prefetched() -> None:
    layer = Layer(ROOM)
    rng = random.Random(3)
    share_found(layer, [rng.choice(buffers(200)) for _ in range(3000)])
    assert len(layer.transferred) < 30


def test_what_is_not_home_is_not_ordered_until_all_of_it_has_landed() -> None:
    layer = Layer(ROOM)
    for _ in range(8):  # oldest first, or newest first: there is but one
        layer.read_back(buffers(1)[0])
        layer.synchronize()
        layer.idle()
        layer.request(buffers(1)[0])
    address, nbytes = buffers(1)[0]
    layer.read_back((address, nbytes))
    layer.happen(News(What.SYNCHRONIZE), News(What.LANDED, address, nbytes // 2))
    assert not layer.queued
    layer.homeward.clear()
    layer.happen(News(What.LANDED, address + nbytes // 2, nbytes // 2))
    assert layer.queued == [(address, nbytes)]


def test_what_comes_sooner_takes_the_room_of_what_comes_later() -> None:
    layer = Layer(8 * MIB)
    bursts = [buffers(8, start=(i + 1) << 40) for i in range(9)]
    newest_first(layer, bursts[:6])
    for burst in bursts[6:]:
        swap_out(layer, burst)
        layer.idle()
        assert set(burst) <= layer.there


def test_what_was_brought_first_makes_room_first_and_no_more_than_is_needed() -> None:
    layer = Layer(8 * MIB)
    old, new = buffers(8), buffers(4, start=1 << 41)
    layer.carry_out(layer.planner.expect([old]))
    layer.idle()
    for number in range(3):  # so many requests pay for going through what is there
        layer.request(((1 << 50) + number * MIB, MIB))
    layer.carry_out(layer.planner.expect([new]))
    layer.idle()
    assert layer.there == {*old[4:], *new}


@pytest.mark.parametrize("count", [200, 600])
def test_with_enough_ahead_transfers_are_full(count: int) -> None:
    layer = Layer(ROOM)  # for 327 of them
    keys = buffers(count, 200 << 10)
    share_found(layer, keys * 4)
    pieces, transfers = layer.pieces_ordered, layer.transfers
    assert share_found(layer, keys) == 1.0
    assert layer.pieces_ordered - pieces >= 15 * (layer.transfers - transfers)


def test_a_request_out_of_turn_leaves_the_queue_as_it_is() -> None:
    layer = Layer(ROOM)
    share_found(layer, buffers(100) * 6)
    for key in buffers(10):
        layer.request(key)
    before = layer.queued, layer.pieces_ordered
    assert before[0]
    layer.request((1 << 50, MIB))
    assert (layer.queued, layer.pieces_ordered) == before


def test_the_queue_stands_while_what_comes_sooner_is_on_its_way_home() -> None:
    layer = Layer(ROOM)
    newest_first(layer, [buffers(8, start=(i + 1) << 40) for i in range(12)])
    older, newer = buffers(8, start=77 << 40), buffers(8, start=78 << 40)
    swap_out(layer, older)
    before = layer.queued, layer.pieces_ordered
    assert before[0]
    for key in newer:
        layer.read_back(key)
    layer.happen(News(What.SYNCHRONIZE))
    assert (layer.queued, layer.pieces_ordered) == before


def test_hints_are_followed() -> None:
    layer = Layer(ROOM)
    layer.carry_out(layer.planner.expect([buffers(10)]))
    assert share_found(layer, buffers(10)) == 1.0


def test_what_is_hinted_at_no_more_is_taken_back() -> None:
    layer = Layer(ROOM)
    layer.carry_out(layer.planner.expect([buffers(10)]))
    assert layer.queued
    layer.carry_out(layer.planner.expect([]))
    assert not layer.queued


def test_a_hint_ends_a_batch_of_swap_outs() -> None:
    layer = Layer(ROOM)
    layer.read_back((1 << 50, MIB))
    layer.carry_out(layer.planner.expect([buffers(10)]))
    assert layer.queued


def test_what_was_refused_is_ordered_again_only_after_a_free() -> None:
    layer = Layer(ROOM)
    keys = buffers(20)
    layer.unfit = {keys[7]}
    share_found(layer, keys * 8)
    refused = sum(key == keys[7] for key in layer.transferred)
    assert not refused
    layer.unfit = set()
    share_found(layer, keys * 4)
    assert keys[7] not in layer.transferred
    layer.free(keys[7])
    share_found(layer, keys * 6)
    assert keys[7] in layer.transferred


@checked
def test_what_is_written_before_each_request_is_tried_ever_more_rarely(*, later: bool) -> None:
    layer = Layer(ROOM, checks_later=later)
    keys = buffers(20)
    share_found(layer, keys * 3)
    before = len(layer.transferred)
    for _ in range(60):
        for key in keys:
            layer.idle()
            layer.write(key)
            layer.request(key)
    assert len(layer.transferred) - before < 8 * len(keys)
    assert layer.planner.tally.stale


@checked
def test_what_was_stale_is_tried_again_and_once_it_was_clean_all_is_forgotten(
    *, later: bool
) -> None:
    layer = Layer(ROOM, checks_later=later)
    keys = buffers(20)
    share_found(layer, keys * 4)

    def found(*, written: bool) -> bool:
        layer.idle()
        if written:
            layer.write(keys[0])
        shares = [share_found(layer, [key]) for key in keys]
        return shares[0] == 1.0

    assert not any(found(written=True) for _ in range(40))
    assert any(found(written=False) for _ in range(70))
    assert found(written=False)  # and nobody has said that it had changed the time before
    assert not found(written=True)
    assert any(found(written=False) for _ in range(2))


def test_what_is_freed_is_not_brought_before_it_was_asked_for_again() -> None:
    layer = Layer(ROOM)
    keys = buffers(10)
    share_found(layer, keys * 6)
    layer.free(keys[5])
    share_found(layer, keys[:5])
    layer.idle()
    assert keys[6] in layer.there
    assert keys[5] not in layer.there


def test_what_is_asked_for_before_its_transfer_costs_no_credit() -> None:
    layer = Layer(ROOM)
    share_found(layer, buffers(100) * 4)
    before = layer.planner._worth.credit
    for key in buffers(100) * 10:  # and the link carries nothing
        layer.request(key)
    assert layer.planner._worth.credit > before - QUEUED


@pytest.mark.parametrize("prompt", [True, False])
def test_hopeless_guesses_stop(*, prompt: bool) -> None:
    layer = Layer(ROOM, prompt=prompt)
    newest_first(layer, [buffers(8, start=(i + 1) << 40) for i in range(20)])
    before = len(layer.transferred)
    ordered = []
    for i in range(100):  # and from here on nothing ever returns
        swap_out(layer, buffers(32, start=(i + 100) << 40))
        layer.idle()
        layer.tell()
        ordered.append(len(layer.transferred) - before)
    assert ordered[-1] > ROOM // MIB
    assert ordered[-1] <= 4 * ROOM // MIB + 32
    assert ordered[-1] == ordered[50]
    assert layer.planner.tally.in_vain_nbytes


def test_good_guesses_are_taken_up_again_after_hopeless_ones() -> None:
    layer = Layer(ROOM)
    layer.planner._worth.credit = 0
    share_found(layer, buffers(100) * 6)
    assert share_found(layer, buffers(100)) == 1.0


def test_without_room_nothing_is_ordered_and_what_was_is_taken_back() -> None:
    layer = Layer(ROOM)
    share_found(layer, buffers(100) * 3)
    assert layer.there
    layer.resize(0)
    assert not layer.there
    assert not layer.queued
    share_found(layer, buffers(100))
    assert not layer.transferred[-1:] or not layer.queued
    layer.resize(ROOM)
    share_found(layer, buffers(100))
    assert share_found(layer, buffers(100)) == 1.0


def test_what_was_prefetched_in_vain_is_counted() -> None:
    layer = Layer(ROOM)
    share_found(layer, buffers(10) * 3)
    layer.idle()
    there = layer.used
    assert there
    for key in buffers(10):
        layer.free(key)
    assert layer.planner.tally.in_vain_nbytes == there
    tally = layer.planner.tally
    assert tally.transferred_nbytes == sum(nbytes for _, nbytes in layer.transferred)
    assert 0 < tally.in_vain < 1
    assert 0 < tally.hit_rate < 1


def test_what_was_under_way_when_it_was_asked_for_counts_as_found_and_as_transferred() -> None:
    layer = Layer(ROOM)
    layer.carry_out(layer.planner.expect([buffers(4)]))
    layer.planner.tell([News(What.HIT, *buffers(4)[0], 0, MIB)])
    tally = layer.planner.tally
    assert (tally.hits, tally.found_nbytes, tally.transferred_nbytes) == (1, MIB, MIB)


@checked
def test_what_was_stale_was_prefetched_in_vain_and_asked_for_once(*, later: bool) -> None:
    layer = Layer(ROOM, checks_later=later)
    share_found(layer, buffers(10) * 3)
    layer.idle()
    tally = layer.planner.tally
    asked, found = tally.nbytes, tally.found_nbytes
    layer.write(buffers(10)[0])
    layer.request(buffers(10)[0])
    assert (tally.stale, tally.in_vain_nbytes) == (1, MIB)
    assert (tally.nbytes, tally.found_nbytes) == (asked + MIB, found)
    assert tally.hits + tally.misses == 31
