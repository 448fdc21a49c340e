"""Three copies whose times can be worked out by hand."""

from __future__ import annotations

import pytest

from pipellm.simulate.pool import Pool
from pipellm.workloads.events import Compute, Event, Idle, StreamWait, Synchronize, Write
from tests.simulate.scripts import (
    HOST,
    PROFILE,
    US,
    load_of,
    mib_per,
    planned,
    play,
    store_of,
)

THREE: list[Event] = [load_of(0), load_of(1), load_of(2), Synchronize()]
# Long enough for the one worker to seal all three meanwhile.
PAUSE = Idle(1000 * US)


def took(microseconds: float) -> object:
    return pytest.approx(microseconds * US, abs=0.01 * US)


def test_off_is_one_launch_then_the_engine() -> None:
    assert play(THREE, "off").seconds == took(5 + 3 * 50)


def test_ideal_is_one_toll_then_the_slower_engine() -> None:
    assert play(THREE, "ideal").seconds == took(10 + 3 * 100)


def test_serial_does_one_thing_after_the_other() -> None:
    assert play(THREE, "serial").seconds == took(3 * (10 + 200 + 100))
    assert play(THREE[:1], "serial").seconds == took(10 + 200 + 100), "pinned memory blocks"


def test_what_nobody_foresaw_is_sealed_by_the_caller_while_the_engine_sends_the_last_one() -> None:
    # Sealed at 110, 220 and 330; each is sent while the next one is sealed.
    assert play(THREE, "pipelined").seconds == took(3 * (10 + 100) + 100)


def test_what_was_foreseen_is_only_moved() -> None:
    rounds = 40
    before, _ = planned([*THREE, PAUSE] * rounds)
    after, device = planned([*THREE, PAUSE] * (rounds + 1))
    # Moved at 60, 120 and 180: the engine never waits again.
    assert after.seconds - before.seconds == took(1000 + 10 + 50 + 3 * 100)
    assert device.tally
    assert device.tally.nops == 0


def test_the_planner_is_waited_for_where_it_is_asked() -> None:
    slow = HOST.with_("decision", 70.0)
    assert play(THREE, "pipelined", slow).seconds == took(3 * (70 + 10 + 100) + 100)
    # What it has promised is not asked about, nor a wait while nothing is deferred.
    one: list[Event] = [*THREE, PAUSE, Synchronize()]
    before, after = (planned(one * rounds, slow)[0].seconds for rounds in (40, 41))
    assert after - before == took(1000 + 10 + 50 + 3 * 100)


def test_what_was_promised_and_has_changed_is_sealed_anew_in_its_place() -> None:
    rounds: list[Event] = [*THREE, PAUSE] * 40
    slow = HOST.with_("decision", 70.0)
    before, _ = planned(rounds, slow)
    changed = load_of(1)
    after, device = planned([*rounds, Write(changed.address, 1), *THREE], slow)
    # Moved at 60, sealed at 170, moved at 230; sent from 60, 170 and 270 on.
    assert after.seconds - before.seconds == took(370)
    assert device.tally
    assert (device.tally.stale, device.tally.nops) == (1, 0)


def test_what_was_sealed_in_time_is_not_late_though_nobody_asked_meanwhile() -> None:
    _, device = planned([load_of(0), Synchronize(), PAUSE] * 40)
    assert device.tally
    assert device.tally.hits > 30
    assert device.tally.late == 0


def test_what_was_swapped_out_is_sealed_ahead_once_it_has_landed() -> None:
    pause: list[Event] = [Synchronize(), PAUSE]
    out: list[Event] = [store_of(0), store_of(1), *pause, *pause]  # landed by the second wait
    back: list[Event] = [load_of(1), load_of(0), *pause]  # last in, first out
    before, after = (planned([*out, *back] * rounds)[1].tally for rounds in (40, 41))
    assert before
    assert after
    assert after.hits == before.hits + 2
    assert after.late == before.late


def test_a_long_copy_is_sealed_and_sent_message_by_message() -> None:
    ten: list[Event] = [load_of(0, 10), Synchronize()]
    assert play(ten, "serial").seconds == took(10 + 10 * 200 + 100)
    # By the caller and its one worker: 50 µs a message, so the engine is what it waits for; the
    # first message takes one of them 100.
    assert play(ten, "pipelined").seconds == took(10 + 50 + 10 * 100)


def test_the_bounce_buffer_holds_the_host_back() -> None:
    # Sixteen messages fit: the call returns when the last of forty has a slot.
    fast = HOST.with_("seal", mib_per(0.001))
    assert play([load_of(0, 40)], "pipelined", fast).seconds == took(10 + (40 - 16) * 100)


def test_swap_outs_are_opened_behind_the_programs_back() -> None:
    out: list[Event] = [store_of(0)]
    assert play(out, "pipelined").seconds == took(10)
    assert play([*out, Synchronize()], "pipelined").seconds == took(10 + 100 + 100)
    assert play(out, "serial").seconds == took(10 + 100 + 200)


def test_the_pool_does_what_is_urgent_first_and_the_rest_in_order() -> None:
    pool = Pool(rate=100.0)
    pool.seal(0.0, 1, 100)
    pool.seal(0.0, 2, 100)
    pool.interrupt(0.5, 4.0)
    assert [(job.id, job.sealed) for job in pool.news(4.5)] == [(1, 50)]
    assert [(job.id, job.sealed) for job in pool.news(5.5)] == [(1, 100), (2, 50)]
    assert pool.remove(5.5, 2)
    assert not pool.news(9.0)


def test_streams_wait_for_each_other() -> None:
    one: list[Event] = [load_of(0, stream=1), StreamWait(0, 1), Compute(0, 0, 0), Synchronize(0)]
    assert play(one, "off").seconds == took(5 + 50)


def test_a_launch_costs_the_host_and_a_chip_the_device() -> None:
    assert PROFILE.chip is None
    assert play([Compute(1e12, 1e12, kernels=4), Synchronize()], "off").seconds == took(4 * 5)
