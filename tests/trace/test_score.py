"""The traces of real programs that come with the tests, and what is foreseen of them."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from pipellm.bench.decisions import Sync
from pipellm.trace import Timed, Trace, load
from pipellm.trace.replay import apart
from pipellm.trace.score import PATTERNS, scores, sent_ahead, steps
from pipellm.transfers import Direction
from pipellm.workloads.events import Copy, Done, Idle, Synchronize, Write
from tests.trace.record import DATA, PROGRAMS

LARGEST = 100_000
MIB = 1 << 20


def swap(direction: Direction, number: int) -> Timed:
    return Timed(0, Copy(direction, number << 24, MIB, number << 24))


def made(*steps: Timed) -> Trace:
    return Trace("made", "-", steps)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_shipped_trace_is_small_and_whole(name: str) -> None:
    assert (DATA / f"{name}.trace").stat().st_size < LARGEST
    recording = load(DATA / f"{name}.trace")
    assert recording.exit_status == 0
    for trace in recording.traces:
        assert trace.complete
        places = [*recording.program, *trace.argv]
        assert not any(argument.startswith("/") for argument in places), "nobody's folders"
        assert trace.steps[-1].event == Done()


@pytest.mark.parametrize(("name", "next_one"), [("flexgen", 0.84), ("peft", 0.73)])
def test_repeated_weights_are_foreseen_once_they_were_seen(name: str, next_one: float) -> None:
    trace = load(DATA / f"{name}.trace").trace()
    found = scores(trace)
    for predictor in ("repetitive", "together"):
        score = found[predictor]
        assert score.next / score.swap_ins >= next_one
        assert score.soon >= score.next
        assert score.wrong <= 0.02 * score.swap_ins
    assert found["fifo"].next == found["lifo"].next == 0
    assert sent_ahead(trace) >= next_one


def test_what_was_swapped_out_returns_in_an_order_that_one_pattern_knows() -> None:
    steps: list[Timed] = []
    for start in range(0, 400, 4):
        out = range(start, start + 4)
        steps += [step for n in out for step in (swap(Direction.D2H, n), Timed(0, Synchronize()))]
        steps += [swap(Direction.H2D, n) for n in reversed(out)]
    found = scores(made(*steps))
    assert set(found) == {*PATTERNS, "together"}
    assert found["lifo"].next >= 0.9 * found["lifo"].swap_ins
    assert found["fifo"].next <= 0.3 * found["fifo"].swap_ins
    assert found["together"].next >= 0.9 * found["together"].swap_ins


def test_a_random_order_is_foreseen_by_nobody() -> None:
    order = random.Random(0).choices(range(200), k=600)
    for score in scores(made(*(swap(Direction.H2D, n) for n in order))).values():
        assert score.next <= 0.1 * score.swap_ins


def test_the_planner_sees_copies_and_waits_and_nothing_else() -> None:
    copy = swap(Direction.H2D, 3)
    seen = list(steps(made(copy, Timed(1, Idle(1.0)), Timed(1, Synchronize(4)), Timed(2, Done()))))
    assert [type(step) is Sync for step in seen] == [False, True]


@pytest.mark.parametrize("name", PROGRAMS)
def test_replayed_buffers_do_not_overlap_and_stay_in_their_order(name: str) -> None:
    trace = load(DATA / f"{name}.trace").trace()
    moved = apart(trace, idle=False)
    assert not any(isinstance(event, Idle) for _, event in moved.steps)
    before = {(e.address, e.nbytes) for _, e in trace.steps if isinstance(e, Copy | Write)}
    after = sorted({(e.address, e.nbytes) for _, e in moved.steps if isinstance(e, Copy | Write)})
    assert [nbytes for _, nbytes in after] == [nbytes for _, nbytes in sorted(before)]
    for (address, nbytes), (following, _) in pairwise(after):
        assert address + nbytes <= following
