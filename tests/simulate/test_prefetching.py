"""The case `prefetch`: the planner for prefetching, over a modelled layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings

from pipellm.plan import Tally as PipelineTally
from pipellm.prefetch import News, Order, Planner, Tally
from pipellm.runtime.policy import POLICIES
from pipellm.simulate import copy_threads
from pipellm.simulate.host import HOSTS
from pipellm.simulate.machine import Machine, Run
from pipellm.simulate.paper import Experiment, experiments
from pipellm.simulate.point import Point, Row
from pipellm.simulate.prefetching import Prefetching
from pipellm.transfers import CHUNK
from pipellm.workloads.events import Event, Idle, Synchronize, Write
from tests.simulate.scripts import HOST, PROFILE, US, Script, load_of, only, play, store_of
from tests.simulate.test_properties import ANYTHING, repeated

SERVER = HOSTS["server"]
THREE: list[Event] = [load_of(0), load_of(1), load_of(2), Synchronize()]
PAUSE = Idle(10_000 * US)


def prefetched(events: list[Event]) -> tuple[Run, Prefetching]:
    machine = Machine(PROFILE, HOST, POLICIES["prefetch"])
    run = machine.run(Script(events), 1)
    return run, only(Prefetching, machine.device)


def lost(experiment: Experiment, case: str) -> float:
    """The share of the throughput of `off` that is lost."""

    def row(case: str) -> Row:
        return Point(experiment, case, "h100", SERVER).simulate()

    return row(case).compared(row("off"), row("off")).drop_vs_off


def test_what_was_foreseen_is_a_launch_away() -> None:
    rounds = 40
    # It waits for its stream: to wait for the device is to wait for what is being prefetched, too.
    three = [*THREE[:-1], Synchronize(0), PAUSE]
    before, _ = prefetched(three * rounds)
    after, device = prefetched(three * (rounds + 1))
    # From the first match on the bytes are compared; launched together, there is no toll, no link.
    compared = 3 * CHUNK / (copy_threads.HASHED * 1e9)
    took = after.seconds - before.seconds - 10_000 * US
    assert took == pytest.approx(3 * US + compared, abs=6 * US)
    assert only(Tally, device.tally).hits > 3 * (rounds - 5)


def test_misses_that_wait_together_share_a_transfer() -> None:
    many: list[Event] = [load_of(i, 0.05) for i in range(40)]
    ideal = play([*many, Synchronize()], "ideal").seconds
    assert play([*many, Synchronize()], "prefetch", SERVER).seconds < ideal


def test_a_read_back_is_home_when_the_program_has_waited() -> None:
    out: list[Event] = [store_of(0)]
    assert play(out, "prefetch").seconds == pytest.approx(3 * US)
    # A launch, the toll, the engine, and a worker opens it.
    home = 3 + 5 + 10 + 100 + 100
    assert play([*out, Synchronize()], "prefetch").seconds == pytest.approx(home * US)


def test_what_is_still_on_the_device_needs_no_link() -> None:
    again: list[Event] = [store_of(0, 8), load_of(0, 8)]
    run, device = prefetched([*again, Synchronize()])
    once, _ = prefetched([*again[:1], Synchronize()])
    assert run.seconds == pytest.approx(once.seconds + 3 * US, abs=6 * US)
    assert only(Tally, device.tally).hits == 1


def test_what_was_written_to_is_copied_anew() -> None:
    program = [*THREE, PAUSE, Write((1 + 1) << 32, 100)]
    _, device = prefetched(program * 20)
    assert only(Tally, device.tally).stale


@given(repeated(ANYTHING, 12))
@settings(max_examples=60, deadline=None)
def test_the_buffer_never_holds_more_than_it_may(events: list[Event]) -> None:
    machine = Machine(replace(PROFILE, memory_gib=20 * 24 / 1024), HOST, POLICIES["prefetch"])
    device = only(Prefetching, machine.device)
    buffer = device.threads.buffer
    for event in [*events, Synchronize()]:
        machine._does[type(event)](event)
        assert 0 <= buffer.used <= buffer.nbytes


def test_the_planner_is_the_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[News] = []

    class Spy(Planner):
        def tell(self, news: Iterable[News]) -> list[Order]:
            told.extend(kept := list(news))
            return super().tell(kept)

    monkeypatch.setattr(copy_threads, "Planner", Spy)
    prefetched([load_of(0), store_of(1), Synchronize()])
    assert len(told) > 3


def test_layer_by_layer_vllm_loses_no_more_than_the_paper_says() -> None:
    (experiment,) = (
        one
        for one in experiments(("vllm",), ("opt-30b",))
        if one.variant == "sharegpt 16/s layered"
    )
    experiment = replace(experiment, units=4000)
    assert lost(experiment, "ideal") > 0.142
    assert lost(experiment, "prefetch") < 0.06


@pytest.mark.parametrize("system", ["flexgen", "peft"])
def test_work_that_is_bound_by_the_link_stays_so(system: str) -> None:
    experiment = replace(next(experiments((system,), ("opt-66b",))), units=48)
    assert lost(experiment, "prefetch") < lost(experiment, "ideal") + 0.005


def test_the_two_planners_count_alike() -> None:
    assert {"hits", "misses"} <= {*Tally.__slots__} & {*PipelineTally.__slots__}
