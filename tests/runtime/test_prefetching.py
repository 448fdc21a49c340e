"""The prefetching runtime: its planner's thread foresees, is told, says when it fails, and ends."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

from pipellm.bench.driver_table import H2D
from tests.runtime.prefetched import MIB, PrefetchedGpu
from tests.runtime.test_reentry import FAILING, FORKED, PRELUDE, run

PREFETCHED = PRELUDE.replace("planned", "prefetched").replace("PlannedGpu", "PrefetchedGpu")
PREFETCHED = PREFETCHED[: PREFETCHED.index("for _ in range(4):")] + (
    "def learn():\n"
    "    step()\n"
    "    return gpu.tally['prefetch_hits'] > 0  # it is being prefetched\n"
    "gpu.until(learn)\n"
)


@pytest.fixture
def gpu() -> Iterator[PrefetchedGpu]:
    made = PrefetchedGpu()
    yield made
    made.close()


def filled(gpu: PrefetchedGpu, value: int) -> int:
    host = gpu.host_alloc(MIB)
    ctypes.memset(host, value, MIB)
    return host


def load(gpu: PrefetchedGpu, host: int) -> bytes:
    device = gpu.malloc(MIB)
    gpu.copy(H2D, device, host, MIB, asynchronous=True)
    gpu.synchronize()
    arrived = ctypes.string_at(device, MIB)
    gpu.call("free", device)
    return arrived


def warm(gpu: PrefetchedGpu) -> None:
    """The buffer has its first segment, and the planner has heard so."""
    load(gpu, filled(gpu, 0))
    gpu.until(lambda: gpu.tally["prefetch_buffer_bytes"] > 0)


def test_what_is_asked_for_again_and_again_is_prefetched(gpu: PrefetchedGpu) -> None:
    hosts = [filled(gpu, value) for value in range(1, 6)]

    def again() -> bool:
        for value, host in enumerate(hosts, 1):
            assert load(gpu, host) == bytes([value]) * MIB
        return gpu.tally["prefetch_hits"] >= 20

    gpu.until(again)
    # How much depends on when the planner hears of what.
    assert gpu.tally["prefetch_in_vain_bytes"] < gpu.tally["prefetch_found_bytes"]


def test_what_the_program_expects_is_prefetched_though_it_was_never_asked_for(
    gpu: PrefetchedGpu,
) -> None:
    warm(gpu)
    hosts = [filled(gpu, value) for value in (1, 2)]
    gpu.context.expect([[(host, MIB)] for host in hosts])
    gpu.until(lambda: gpu.tally["prefetch_transferred_bytes"] == 2 * MIB)
    ctypes.memset(hosts[1], 3, MIB)  # it may lie in the buffer as it was
    assert load(gpu, hosts[0]) == b"\1" * MIB
    assert load(gpu, hosts[1]) == b"\3" * MIB
    gpu.until(lambda: gpu.tally["prefetch_hits"] + gpu.tally["prefetch_misses"] == 3)
    assert gpu.tally["prefetch_hits"] >= 1


def test_what_is_never_to_be_read_ahead_is_not_until_that_is_taken_back(
    gpu: PrefetchedGpu,
) -> None:
    warm(gpu)
    forbidden, other = filled(gpu, 1), filled(gpu, 2)
    gpu.driver.never_ahead(forbidden, MIB)
    gpu.context.expect([[(forbidden, MIB)], [(other, MIB)]])
    gpu.until(lambda: gpu.tally["prefetch_transferred_bytes"] == MIB)
    assert gpu.driver.allow_ahead(forbidden, MIB)
    gpu.context.expect([[(forbidden, MIB)], [(other, MIB)]])
    gpu.until(lambda: gpu.tally["prefetch_transferred_bytes"] == 2 * MIB)
    assert load(gpu, forbidden) == b"\1" * MIB


def test_a_planner_that_fails_is_heard_once_and_costs_speed_only() -> None:
    first, rest = PREFETCHED.split("gpu = PrefetchedGpu()")
    said = run(
        """
require_right()
require_right()
gpu.close()
""",
        prelude=first + FAILING + "gpu = PrefetchedGpu()" + rest.replace("_hits", "_misses"),
    )
    assert said == (
        "right\nright\npipellm: GPU 0: the planner failed (MemoryError: no room to think); from "
        "now on nothing is prefetched\n"
    )


def test_copies_are_made_to_the_very_end() -> None:
    said = run(
        """
from pipellm.runtime import planning
atexit.register(require_right)  # runs after the planner's interpreter has ended
atexit.unregister(planning.interpreter().end)
atexit.register(planning.interpreter().end)
def forever():
    there = gpu.malloc(SIZE)
    while True:
        gpu.copy(H2D, there, host[1], SIZE, asynchronous=True)
threading.Thread(target=forever, daemon=True).start()
step()
""",
        prelude=PREFETCHED,
    )
    assert said == "right\n"


def test_handlers_copy_and_raise_while_the_planner_thinks() -> None:
    said = run(
        """
heard = 0
class Alarm(Exception):
    pass
def handler(*_):
    global heard
    heard += 1
    save()
    raise Alarm
signal.signal(signal.SIGALRM, handler)
while heard < 100:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0003 + heard * 2e-5)
        while True:
            step()
    except Alarm:
        pass
gpu.synchronize()
require_right()
""",
        prelude=PREFETCHED,
    )
    assert said == "right\n"


def test_a_forked_child_of_a_process_that_has_not_used_the_device_plans_for_itself() -> None:
    assert run("require_right()", prelude=FORKED + PREFETCHED) == "right\n" * 3


def test_a_child_forked_while_the_planner_works_ends_as_it_should() -> None:
    said = run(
        """
faulthandler.cancel_dump_traceback_later()  # a child of one with a timer cannot end
for _ in range(20):
    step()
    child = os.fork()
    if child == 0:
        sys.exit(0)  # by way of the exit handlers
    assert os.waitpid(child, 0)[1] == 0
require_right()
""",
        prelude=PREFETCHED,
    )
    assert said == "right\n"
