"""Puts planners over the devices of a driver, each with what it needs to know of this machine."""

from __future__ import annotations

import atexit
import os
import sys
import sysconfig
from functools import cache
from pathlib import Path

from pipellm import _native
from pipellm.channel.engines import Engines
from pipellm.gpu.emulated.profile import Profile
from pipellm.plan import Costs, Rules
from pipellm.prefetch import TRANSFER
from pipellm.runtime.prefetching import PREFETCHING
from pipellm.runtime.speculation import SPECULATION
from pipellm.runtime.statistics import Statistics
from pipellm.settings import log_is_wanted
from pipellm.transfers import CHUNK

_SHARE = 20
"""One part in so many of the device's memory is for the prefetch buffer, and"""
_HOST_SHARE = 8
"""one in so many of this machine's spare memory, which plays it."""
_QUIET_NS = 250_000
"""So long the link is left alone after a copy that the program did itself: such copies come one
after the other, and each would wait for a transfer of what was foreseen."""
_NAP_NS = 200_000
"""The planner for prefetching thinks no more often: to wake its thread costs the program's."""


def install(
    driver: _native.Driver,
    rules: Rules,
    profile: Profile,
    speed: Engines,
    statistics: Statistics,
) -> None:
    """Has each device of `driver` planned by `rules`. Before anybody has its table."""
    statistics.declare((*_native.COUNTERS, *SPECULATION))
    # By the emulated clock, as all that the planner knows of time.
    sealing = speed.gigabytes_per_second[speed.fastest] * threads() * driver.clock.slowdown
    costs = Costs(
        nop_ns=round(profile.on.h2d.pageable.toll_us * 1e3),
        seal_ns=round(CHUNK / sealing),
    )
    plan(
        driver,
        rules,
        costs,
        counters=statistics.counters[len(_native.COUNTERS) :],
        threads=threads(),
        tells=log_is_wanted(os.environ),
    )
    atexit.register(_close, driver)


def plan(
    driver: _native.Driver,
    rules: Rules,
    costs: Costs,
    *,
    counters: memoryview,
    threads: int,
    tells: bool = False,
) -> None:
    """Has each device of `driver` planned, and sealed for by so many threads.

    `counters` are int64, SPECULATION first; `tells`: the story of every copy, on standard error.
    """
    driver.plan(
        interpreter=interpreter(),
        ahead=rules.ahead,
        budget=rules.budget,
        patience_ns=rules.patience_ns,
        nop_ns=costs.nop_ns,
        seal_ns=costs.seal_ns,
        counters=counters,
        threads=threads,
        arena_messages=rules.budget_chunks,
        tells=tells,
    )


def buffer_budget(profile: Profile) -> int:
    """Bytes of a device's memory that the prefetch buffer may take."""
    return min(profile.memory_bytes // _SHARE, spare_memory() // _HOST_SHARE)


def prefetch(driver: _native.Driver, budget: int, statistics: Statistics) -> None:
    """Has what each device of `driver` is to be asked for sent ahead.

    Before anybody has its table. `budget`: bytes of its memory for what was not asked for yet.
    """
    statistics.declare((*_native.COUNTERS, *PREFETCHING))
    driver.prefetch(
        interpreter=interpreter(),
        budget=budget,
        transfer_bytes=TRANSFER,
        threads=threads(),
        quiet_ns=round(_QUIET_NS * driver.clock.slowdown),
        nap_ns=round(_NAP_NS * driver.clock.slowdown),
        counters=statistics.counters[len(_native.COUNTERS) :],
        tells=log_is_wanted(os.environ),
    )
    atexit.register(_close, driver)


@cache
def interpreter() -> _native.Interpreter:
    """The interpreter of our own in which this process's planners run; made now if there is none.

    It ends when this one does. Copies that are asked for later still are sealed when they are.
    """
    made = _native.Interpreter.start(places(), "pipellm.runtime.interpreter")
    atexit.register(made.end)
    return made


def places() -> list[str]:
    """Where that interpreter finds its modules: the standard library, and PipeLLM.

    Nothing of the program's: a module of its own with the name of a standard one is not for us.
    """
    # Those of a virtual environment hold no standard library.
    compiled = sysconfig.get_path("platstdlib", vars={"platbase": sys.base_exec_prefix})
    return [
        sysconfig.get_path("stdlib"),
        compiled,
        os.path.join(compiled, "lib-dynload"),
        str(Path(__file__).parents[2]),
    ]


def spare_memory() -> int:
    """Bytes of this machine's memory that could be had without swapping."""
    words = Path("/proc/meminfo").read_text("ascii").split()
    return int(words[words.index("MemAvailable:") + 1]) << 10


def threads() -> int:
    """Threads to seal with: the cores that this process may use, but for the program's own."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


def _close(driver: _native.Driver) -> None:
    if driver.in_bad_fork:  # inherited the exit handler, but not the device behind it
        return
    for device in range(driver.devices):
        context = driver.context_if_used(device)
        if context is not None:
            context.close()
