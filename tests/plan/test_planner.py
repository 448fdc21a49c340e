"""Whatever a program does, the planner is never stuck, never unbounded and never wrong.

Random programs run on a model that checks each action as it does it (`machine`).
"""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipellm.plan import PAPER, SERIAL, Action, Costs, IVError, Planner, Rules, SealNow, Why
from pipellm.plan.planner import CROWD
from pipellm.transfers import CHUNK, Direction, Transfer
from tests.plan.machine import SMALL_AREA, UNIT, Machine, Phase, phases, run

RULES = st.builds(
    Rules,
    ahead=st.just(True),
    budget=st.sampled_from([0, CHUNK, 5 * CHUNK, 40 * CHUNK, 256 * CHUNK]),
)
COSTS = st.builds(Costs, nop_ns=st.sampled_from([1, 26_000, 10**9]))


@given(
    rules=RULES,
    costs=COSTS,
    program=st.lists(phases(), min_size=1, max_size=6),
    seed=st.integers(0, 2**32),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
def test_every_request_is_sent_once_with_its_bytes_under_consecutive_ivs(
    rules: Rules, costs: Costs, program: list[Phase], seed: int
) -> None:
    planner = Planner(rules, costs)
    machine = Machine(planner, rules, seed)
    for phase in program:
        run(machine, phase)
        if machine.rng.random() < 0.2:
            machine.rotate()
    machine.close()
    assert planner.tally.hits == machine.hits


@given(program=st.lists(phases(), min_size=1, max_size=3), seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_same_events_give_the_same_actions(program: list[Phase], seed: int) -> None:
    def actions() -> list[Action]:
        planner = Planner(PAPER, Costs())
        machine = Machine(planner, PAPER, seed)
        done: list[Action] = []
        do = machine.do

        def record(some: Iterable[Action]) -> None:
            some = list(some)
            done.extend(some)
            do(some)

        machine.do = record  # type: ignore[method-assign,assignment]
        for phase in program:
            run(machine, phase)
        return done

    assert actions() == actions()


@given(program=st.lists(phases(), min_size=1, max_size=3), seed=st.integers(0, 2**32))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_without_speculation_every_copy_is_sealed_when_asked_for(
    program: list[Phase], seed: int
) -> None:
    planner = Planner(SERIAL, Costs())
    machine = Machine(planner, SERIAL, seed)
    for phase in program:
        run(machine, phase)
        assert not machine.ended
    assert planner.tally.nops == 0
    assert planner.tally.reorders == 0


# Single rules ----------------------------------------------------------------------------------


def loops(machine: Machine, buffers: Iterable[int], rounds: int, nbytes: int = 2 * CHUNK) -> None:
    """Load the buffers over and over, until their order is known; no time passes for sealing."""
    for _ in range(rounds):
        for unit in buffers:
            machine.copy(Direction.H2D, unit * UNIT, nbytes)


def machine_with(rules: Rules = PAPER, costs: Costs | None = None) -> Machine:
    return Machine(Planner(rules, costs or Costs()), rules, 0)


RING = tuple(range(0, 320, 32))


def test_a_loop_is_hit_without_a_nop_once_it_has_been_seen() -> None:
    machine = machine_with()
    loops(machine, RING, 3)
    before = machine.planner.tally.nops
    hits = machine.planner.tally.hits
    loops(machine, RING, 5)
    assert machine.planner.tally.hits - hits == 5 * len(RING)
    assert machine.planner.tally.nops == before


def test_a_changed_plaintext_costs_its_own_resealing_and_nothing_else() -> None:
    machine = machine_with()
    loops(machine, RING, 4)
    live = len(machine.live)
    machine.change(RING[0] * UNIT, UNIT, noticed=False)
    machine.copy(Direction.H2D, RING[0] * UNIT, 2 * CHUNK)
    assert machine.planner.tally.stale == 1
    assert machine.planner.tally.relinquishes == 1
    assert len(machine.live) >= live - 1


def test_a_request_that_is_ahead_waits_for_the_others_of_its_batch() -> None:
    machine = machine_with()
    loops(machine, RING, 4)
    nops = machine.planner.tally.nops
    machine.copy(Direction.H2D, RING[1] * UNIT, 2 * CHUNK)
    assert len(machine.pending) == 1
    machine.copy(Direction.H2D, RING[0] * UNIT, 2 * CHUNK)
    assert not machine.pending
    assert machine.planner.tally.nops == nops
    assert machine.planner.tally.reorders == 1


@pytest.mark.parametrize("ending", ["sync", "order", "clock", "blocking", "same bytes"])
def test_a_wait_ends(ending: str) -> None:
    machine = machine_with()
    loops(machine, RING, 4)
    machine.copy(Direction.H2D, RING[1] * UNIT, 2 * CHUNK)
    assert machine.planner.waiting == 1
    assert machine.planner.deadline == machine.now + PAPER.patience_ns
    match ending:
        case "sync":
            machine.do(machine.planner.sync(0))
        case "order":
            machine.do(machine.planner.order(7))
            assert machine.pending
            machine.do(machine.planner.order(0))
        case "clock":
            machine.do(machine.planner.clock(machine.now + PAPER.patience_ns - 1))
            assert machine.pending
            machine.do(machine.planner.clock(machine.now + PAPER.patience_ns))
        case "blocking":
            machine.copy(Direction.H2D, SMALL_AREA * UNIT, 2048, blocking=True)
        case "same bytes":
            machine.copy(Direction.D2H, 5000 * UNIT, CHUNK, to=RING[1] * UNIT, stream=3)
    assert not machine.pending
    assert machine.planner.deadline is None
    assert machine.planner.tally.nops >= 1


def test_only_so_many_wait() -> None:
    machine = machine_with()
    buffers = range(0, 60 * 16, 16)
    loops(machine, buffers, 4, CHUNK)
    most = 0
    for unit in buffers[1:]:
        machine.copy(Direction.H2D, unit * UNIT, CHUNK)
        most = max(most, machine.planner.waiting)
    assert most == CROWD
    assert machine.planner.waiting < CROWD


def test_a_gap_is_closed_by_nops_and_what_was_skipped_is_given_up() -> None:
    machine = machine_with()
    loops(machine, RING, 4)
    relinquished, nops = machine.planner.tally.relinquishes, machine.planner.tally.nops
    machine.copy(Direction.H2D, RING[2] * UNIT, 2 * CHUNK, blocking=True)
    assert machine.planner.tally.nops == nops + 4
    assert machine.planner.tally.relinquishes == relinquished + 2


def test_a_gap_too_dear_for_nops_starts_over() -> None:
    machine = machine_with(costs=Costs(nop_ns=10**9))
    loops(machine, RING, 4)
    hits = machine.planner.tally.hits
    machine.copy(Direction.H2D, RING[2] * UNIT, 2 * CHUNK, blocking=True)
    assert machine.planner.tally.nops == 0
    loops(machine, RING[3:], 1)
    assert machine.planner.tally.hits >= hits + len(RING[3:]) - 1


def test_only_those_behind_are_lost_where_there_is_leeway() -> None:
    machine = machine_with()
    small = SMALL_AREA * UNIT
    for number in range(8):
        for unit in RING:
            for _ in range(number % 2 * 3 + 1):
                machine.copy(Direction.H2D, small, 2048)
            machine.copy(Direction.H2D, unit * UNIT, 2 * CHUNK)
    relinquished = machine.planner.tally.relinquishes
    for _ in range(4):
        machine.copy(Direction.H2D, small, 2048)
    assert machine.planner.tally.relinquishes == relinquished


def test_nothing_is_sealed_from_memory_that_a_swap_out_is_about_to_write() -> None:
    machine = machine_with()
    loops(machine, RING, 4)
    machine.copy(Direction.D2H, RING[3] * UNIT, 2 * CHUNK, to=9000 * UNIT, stream=1)
    loops(machine, RING[:3], 1)
    assert all(one.address != RING[3] * UNIT for one in machine.live.values())
    machine.sync()


def test_memory_that_cannot_be_watched_is_not_tried_again() -> None:
    machine = machine_with()
    loops(machine, RING, 3)
    address = RING[5] * UNIT
    [identity] = [i for i, one in machine.live.items() if one.address == address][:1]
    machine.do(machine.planner.refused(identity, Why.UNFIT))
    loops(machine, RING, 1)
    relinquished = machine.planner.tally.relinquishes
    loops(machine, RING, 5)
    assert machine.planner.tally.relinquishes == relinquished
    assert all(one.address != address for one in machine.live.values())


def test_a_buffer_that_always_changes_wastes_less_and_less() -> None:
    machine = machine_with()
    for number in range(100):
        for unit in RING:
            if unit == RING[4] and number > 3:
                machine.change(unit * UNIT, UNIT, noticed=False)
            machine.copy(Direction.H2D, unit * UNIT, 2 * CHUNK)
    assert machine.planner.tally.stale <= 15


def test_what_the_program_expects_is_sealed_ahead_in_its_order() -> None:
    machine = machine_with()
    rng = random.Random(0)
    for round_ in range(8):  # in the first, how many small transfers come in between is learned
        hits = machine.planner.tally.hits
        for buffer in range(6):
            machine.copy(Direction.D2H, buffer * 16 * UNIT, CHUNK)
        for out, _ in list(machine.landing):
            machine.land(out)
        order = rng.sample(range(6), 6)
        machine.do(machine.planner.expect([[(buffer * 16 * UNIT, CHUNK) for buffer in order]]))
        for buffer in order:
            machine.copy(Direction.H2D, buffer * 16 * UNIT, CHUNK)
        assert round_ == 0 or machine.planner.tally.hits - hits == len(order)
    assert machine.planner.tally.by_pattern["told"] >= 7 * 6


def test_small_transfers_without_end_do_not_reseal_without_end() -> None:
    machine = machine_with()
    loops(machine, RING, 4)
    for _ in range(10_000):
        machine.copy(Direction.H2D, SMALL_AREA * UNIT, 2048)
    assert machine.planner.tally.wasted_chunks <= 20 * 64


def test_dead_workers_make_it_slow_not_wrong() -> None:
    machine = machine_with()
    for _ in range(30):
        for unit in RING:
            machine.copy(Direction.H2D, unit * UNIT, 2 * CHUNK)
            for identity in list(machine.live):
                machine.do(machine.planner.refused(identity, Why.FAILED))
    machine.sync()
    assert machine.planner.tally.hits == 0
    assert machine.planner.tally.sealed_ahead_chunks <= 10 * 64


def test_an_empty_copy_is_refused_and_the_last_iv_is_not_passed() -> None:
    planner = Planner(SERIAL, Costs())
    with pytest.raises(ValueError, match="empty"):
        planner.request(0, Transfer(Direction.H2D, 0, 0, 0))
    planner.ledger.send(1, planner.ledger.remaining)
    with pytest.raises(IVError, match="0 IVs left"):
        planner.request(0, Transfer(Direction.H2D, 0, 1, 0))
    planner.rotate()
    assert planner.request(0, Transfer(Direction.H2D, 0, 1, 0)) == [
        SealNow(Transfer(Direction.H2D, 0, 1, 0), 1, 1)
    ]
