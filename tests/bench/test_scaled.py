"""The profile `scaled` has the proportions of the paper's server."""

from __future__ import annotations

import threading
import time
from array import array
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipellm import _native
from pipellm.bench.cases import CASES, Case
from pipellm.bench.contenders import CONTENDERS
from pipellm.bench.scaled import SERVER, Pace, Scale
from pipellm.gpu.emulated.profile import Profile, load
from pipellm.runtime.opening import open_under
from pipellm.runtime.policy import POLICIES
from pipellm.runtime.statistics import Statistics
from pipellm.simulate.host import Host
from pipellm.simulate.machine import Machine

MIB = 1 << 20
SMALL = Scale(seal_gbps=10.0, together_gbps=10.0)
HERE = Host(cores=1, libcrypto=4.5, seal=10.0, copy=20.0, memory=40.0, scan=200.0, decision=25.0)
HOUR = 3600 * 10**9  # in nanoseconds
COPY, BUSY, SYNCHRONIZE, FILL, MARK = 0, 1, 2, 4, 6
H2D, D2H = 0, 1


# The factor -------------------------------------------------------------------------------------


def test_all_threads_seal_as_much_while_the_link_carries_a_byte_as_the_servers_do() -> None:
    played = SMALL.host(HERE)
    assert SMALL.slowdown == pytest.approx(SERVER.sealing(SERVER.workers) / 10e9)
    assert played.sealing(played.workers) == pytest.approx(SERVER.sealing(SERVER.workers), rel=0.03)


def test_a_core_here_is_no_faster_for_what_only_one_can_do() -> None:
    played = SMALL.host(HERE)
    assert (played.seal, played.copy, played.decision) == (HERE.seal, HERE.copy, HERE.decision)


def test_a_host_larger_than_the_server_is_not_slowed() -> None:
    assert Scale(seal_gbps=18.0, together_gbps=400.0).slowdown == 1


# What is paced ----------------------------------------------------------------------------------


def test_only_what_the_driver_itself_seals_is_paced() -> None:
    paced = {name for name, contender in CONTENDERS.items() if SMALL.pace(contender)}
    assert paced == {"serial", "serial+libcrypto", "prefetch"}
    for name, contender in CONTENDERS.items():
        calls = [
            cost.call
            for costs in (SMALL.profile(contender).on.h2d, SMALL.profile(contender).on.d2h)
            for cost in (costs.pinned, costs.pageable)
        ]
        assert all(calls) if name in paced else not any(calls), name


def test_the_link_tolls_and_device_are_the_servers_own() -> None:
    base = load("h100")
    for contender in CONTENDERS.values():
        profile = SMALL.profile(contender)
        assert (profile.off, profile.chip) == (base.off, base.chip)
        assert profile.on.h2d.pinned.engine == base.on.h2d.pinned.engine
        assert profile.on.h2d.pinned.toll_us == base.on.h2d.pinned.toll_us


@pytest.mark.parametrize("nbytes", [1, 100_000, MIB, 64 * MIB, 1 << 30])
def test_as_shipped_a_call_takes_the_toll_the_sealing_and_the_last_message(nbytes: int) -> None:
    profile = SMALL.profile(CONTENDERS["serial"])
    cost = profile.on.h2d.pageable
    assert cost.call is not None
    expected = (
        cost.toll_us + nbytes / SERVER.libcrypto / 1e3 + cost.engine.microseconds(min(nbytes, MIB))
    )
    assert cost.call.microseconds(nbytes) == pytest.approx(expected)


def test_the_provider_seals_large_messages_with_eight_cores_like_this_ones() -> None:
    found = SMALL.pace(CONTENDERS["serial+libcrypto"])
    assert found is not None
    assert found.one == 10.0
    joining = 9.0
    assert MIB / 1e3 / found.split == pytest.approx(MIB / 1e3 / 80 + joining)
    pace = Pace(one=10.0, split=40.0)
    assert pace.microseconds(100_000) == pytest.approx(10)
    assert pace.microseconds(40_000_000) == pytest.approx(1000)
    assert pace.in_words == "sealing, 10 to 40 GB/s"


@pytest.mark.parametrize(
    ("key", "units"),
    [
        ("flexgen-opt-30b", 12),
        ("flexgen-opt-175b", 12),
        ("peft-opt-13b", 8),
        ("vllm-opt-30b-alpaca", 2_000),
        ("vllm-opt-30b-sharegpt-layered", 300),
        ("random", 400),
    ],
)
def test_as_shipped_loses_what_it_loses_on_the_simulated_h100(key: str, units: int) -> None:
    case = CASES[key]
    scaled = SMALL.profile(CONTENDERS["serial"]), SMALL.host(HERE)
    here = lost(case, units, *scaled)
    there = lost(case, units, load("h100"), SERVER)
    assert here == pytest.approx(there, abs=0.01)


def lost(case: Case, units: int, profile: Profile, host: Host) -> float:
    """The share of `off`'s throughput that `serial` loses."""
    off, serial = (
        Machine(profile, host, POLICIES[name]).run(case.make(), units, warm=case.warm).throughput
        for name in ("off", "serial")
    )
    return 1 - serial / off


# Slow motion ------------------------------------------------------------------------------------


def test_a_clock_may_go_slower_than_the_walls() -> None:
    clock = _native.RealClock(slowdown=8)
    before = time.monotonic_ns()
    now = clock.now()
    after = time.monotonic_ns()
    assert before <= 8 * (now + 1)
    assert 8 * now <= after
    clock.wait_until(now + 1_000_000)
    assert clock.now() >= now + 1_000_000
    assert time.monotonic_ns() - before >= 8_000_000


@pytest.mark.parametrize("slowdown", [0.5, 0, -1, float("nan"), float("inf")])
def test_no_clock_goes_faster_than_the_walls(slowdown: float) -> None:
    with pytest.raises(ValueError, match="slowdown"):
        _native.RealClock(slowdown=slowdown)


@pytest.mark.parametrize(
    ("operations", "cores"),
    [
        ([(COPY, H2D, 4096)], 1),
        ([(COPY, H2D, 2 * MIB)], 2),
        ([(COPY, H2D, 3 * MIB)], 3),
        ([(COPY, H2D, 64 * MIB)], 8),  # no more than the slowdown
        ([(SYNCHRONIZE, 0, 0)], 1),
    ],
)
def test_the_programs_thread_pays_in_full_for_what_it_does_alone(
    operations: list[tuple[int, int, int]], cores: int
) -> None:
    # An eighth has passed on the clock by itself.
    assert charge(operations, charged=True) == int(2000 * (1 / cores - 1 / 8))


def test_a_wait_is_shared_by_as_many_as_there_are_messages_to_open() -> None:
    swapped_out = [(COPY, D2H, MIB), (COPY, D2H, MIB), (SYNCHRONIZE, 0, 0), (SYNCHRONIZE, 0, 0)]
    assert charge(swapped_out, charged=True) == 2 * (2 * 875 + 375 + 875)


def test_the_programs_own_writes_and_other_policies_are_not_charged() -> None:
    assert charge([(FILL, 0, 4096)], charged=True) == 0
    assert charge([(COPY, H2D, 4096), (SYNCHRONIZE, 0, 0)], charged=False) == 0


def test_a_wait_in_which_nobody_works_is_skipped() -> None:
    clock = _native.RealClock(slowdown=1000)
    driver = open_under(POLICIES["off"], load("fast"), 1, Statistics(None), clock=clock)
    replay = _native.Replay(driver, charged=False)
    begin, end = replay.run(in_turn((MARK,), (BUSY, 0, HOUR), (SYNCHRONIZE,), (MARK,)))
    assert end - begin >= HOUR
    driver.stop_threads()


def test_a_wait_is_not_skipped_while_the_device_moves_bytes() -> None:
    clock = _native.RealClock(slowdown=1000)
    driver = open_under(POLICIES["pipelined"], load("fast"), 1, Statistics(None), clock=clock)
    replay = _native.Replay(driver, charged=True)
    host, device = replay.host_memory(MIB, pinned=True), replay.device_memory(MIB)
    moving, go_on = threading.Event(), threading.Event()

    def hold(direction: int, number: int, message: memoryview) -> None:
        moving.set()
        go_on.wait()

    driver.set_tap(0, hold)
    copy = (COPY, 0, H2D, host, device, MIB, 1)
    operations = in_turn((MARK,), copy, (BUSY, 0, HOUR), (SYNCHRONIZE,), (MARK,))
    with ThreadPoolExecutor(1) as thread:
        marks = thread.submit(replay.run, operations)
        moving.wait()
        before = clock.now()
        for _ in range(1000):
            clock.now()
        assert clock.now() - before < HOUR
        assert not marks.done()
        go_on.set()
        begin, end = marks.result()
    assert end - begin >= HOUR
    driver.context(0).close()
    driver.stop_threads()


def in_turn(*operations: tuple[int, ...]) -> array[int]:
    """Operations of a replay, each filled up with zeros."""
    return array("q", [n for one in operations for n in (*one, *([0] * (7 - len(one))))])


def charge(operations: list[tuple[int, int, int]], *, charged: bool) -> int:
    """Nanoseconds that pass for a program in whose every operation 1,000 ns of work are done before
    the driver's part of it, in that part, and after it, on a machine where nothing else takes time.
    """
    clock = _native.ManualClock(slowdown=8, work=1000)
    driver = open_under(POLICIES["off"], load("fast"), 1, Statistics(None), clock=clock)
    replay = _native.Replay(driver, charged=charged)
    host, device = replay.host_memory(64 * MIB, pinned=True), replay.device_memory(64 * MIB)
    replay.run(
        in_turn(
            *(
                (kind, 0, direction, host, device, nbytes, 1)
                for kind, direction, nbytes in operations
            )
        )
    )
    driver.stop_threads()
    return clock.now()
