"""What holds for every program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipellm.plan import Action, Planner
from pipellm.runtime import executor
from pipellm.runtime.policy import POLICIES, Policy
from pipellm.simulate.machine import Machine
from pipellm.transfers import Direction, Transfer, messages
from pipellm.workloads.events import (
    Compute,
    Copy,
    Event,
    Idle,
    StreamWait,
    Synchronize,
    Write,
)
from tests.simulate.scripts import HOST, PLENTY, PROFILE, Watched, load_of, planned, play, store_of

_BUFFERS = st.integers(0, 5)
_STREAMS = st.integers(0, 2)


def copies(
    blocking: st.SearchStrategy[bool], streams: st.SearchStrategy[int]
) -> st.SearchStrategy[Copy]:
    size = st.sampled_from([0.001, 0.2, 1, 2.5, 20])
    into = st.builds(load_of, _BUFFERS, size, blocking=blocking, stream=streams)
    out = st.builds(store_of, _BUFFERS, size, blocking=blocking, stream=streams)
    return st.one_of(into, into, out)


ANYTHING: st.SearchStrategy[Event] = st.one_of(
    copies(st.booleans(), _STREAMS),
    copies(st.booleans(), _STREAMS).map(lambda copy: replace(copy, pinned=False)),
    st.builds(Compute, st.just(0.0), st.just(0.0), _STREAMS, st.integers(0, 3)),
    st.builds(Synchronize, st.one_of(st.none(), _STREAMS)),
    st.builds(StreamWait, _STREAMS, _STREAMS),
    st.builds(lambda buffer: Write((buffer + 1) << 32, 100), _BUFFERS),
    st.builds(Idle, st.sampled_from([0.0, 1e-5, 1e-3])),
)


def repeated(events: st.SearchStrategy[Event], longest: int) -> st.SearchStrategy[list[Event]]:
    """Programs that do something, some of it again and again: else nothing is ever foreseen."""
    part = st.lists(events, min_size=1, max_size=longest)
    return st.lists(st.tuples(part, st.integers(1, 6)), min_size=1, max_size=4).map(
        lambda parts: [event for part, times in parts for event in part * times]
    )


@pytest.mark.parametrize("policy", POLICIES)
@given(repeated(ANYTHING, 12))
@settings(max_examples=60, deadline=None)
def test_time_never_runs_backward(policy: str, events: list[Event]) -> None:
    script = Watched(events)
    Machine(PROFILE, HOST, Policy.named(policy)).run(script, 1)
    times = script.__dict__["times"]
    assert times == sorted(times)


@given(repeated(ANYTHING, 12))
@settings(max_examples=100, deadline=None)
def test_ivs_are_consecutive_and_every_message_has_one(events: list[Event]) -> None:
    run, device = planned([*events, Synchronize()])
    sent = dict.fromkeys(Direction, 0)
    for event in events:
        if isinstance(event, Copy):
            sent[event.direction] += messages(event.nbytes)
    assert run.tally is not None or not any(sent.values())
    nops = device.tally.nops if device.tally else 0
    # The device refuses any that is not the next one.
    assert device.next == {
        Direction.H2D: sent[Direction.H2D] + nops + 1,
        Direction.D2H: sent[Direction.D2H] + 1,
    }
    assert run.nbytes == sum(event.nbytes for event in events if isinstance(event, Copy))


def test_the_device_refuses_an_iv_that_is_not_the_next_one() -> None:
    _, device = planned([load_of(0)])
    with pytest.raises(RuntimeError, match="not the next one"):
        device.send_nops(3, 1)


@pytest.mark.parametrize("policy", POLICIES)
@given(repeated(ANYTHING, 8))
@settings(max_examples=30, deadline=None)
def test_the_same_program_takes_the_same_time_again(policy: str, events: list[Event]) -> None:
    assert play(events, policy) == play(events, policy)


@given(repeated(st.one_of(copies(st.booleans(), st.just(0)), st.just(Synchronize())), 12))
@settings(max_examples=100, deadline=None)
def test_off_is_no_slower_than_ideal_and_ideal_no_slower_than_anything_sealed(
    events: list[Event],
) -> None:
    events = [*events, Synchronize()]
    off, ideal, serial, pipelined = (
        play(events, policy).seconds for policy in ("off", "ideal", "serial", "pipelined")
    )
    slack = 1 + 1e-9
    assert off <= ideal * slack
    assert ideal <= serial * slack
    assert ideal <= pipelined * slack


@given(repeated(copies(st.just(True), st.just(0)), 12))
@settings(max_examples=60, deadline=None)
def test_where_the_program_waits_for_each_copy_serial_is_ideal_but_for_sealing(
    events: list[Event],
) -> None:
    free = HOST.with_("libcrypto", PLENTY)
    assert play(events, "serial", free).seconds == pytest.approx(play(events, "ideal").seconds)


@given(repeated(ANYTHING, 8), st.sampled_from(["libcrypto", "seal", "copy", "scan"]))
@settings(max_examples=40, deadline=None)
def test_a_faster_host_makes_serial_no_slower(events: list[Event], quantity: str) -> None:
    faster = HOST.with_(quantity, 2 * getattr(HOST, quantity))
    assert play(events, "serial", faster).seconds <= play(events, "serial").seconds * (1 + 1e-9)


def test_the_planner_is_the_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Transfer] = []

    class Spy(Planner):
        def request(
            self, now: int, transfer: Transfer, validated: int | None = None
        ) -> list[Action]:
            asked.append(transfer)
            return super().request(now, transfer, validated)

        def followed(
            self, transfer: Transfer, iv: int, *, clean: bool = True, late: bool = False
        ) -> list[Action]:
            asked.append(transfer)
            return super().followed(transfer, iv, clean=clean, late=late)

    monkeypatch.setattr(executor, "Planner", Spy)
    planned([load_of(0), store_of(1), Synchronize()])
    assert len(asked) == 2


def pieces(chunks: int, rounds: int) -> float:
    """Pieces of work that the pool was given, for each copy."""
    program: Sequence[Event] = [load_of(i, chunks) for i in range(10)]
    run, device = planned([*program, Synchronize()] * rounds)
    assert device.tally
    assert device.tally.hits
    return device.pool.pieces / run.copies


def test_a_transfer_costs_the_simulation_the_same_however_long_it_is_and_however_many() -> None:
    short, long, longer = pieces(2, 50), pieces(200, 50), pieces(200, 400)
    assert long <= 20 * short
    assert longer <= 1.2 * long
