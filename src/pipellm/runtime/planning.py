"""Puts planners over the devices of a driver, each with what it needs to know of this machine."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable

from pipellm import _native
from pipellm.channel.engines import Engines
from pipellm.gpu.emulated.profile import Profile
from pipellm.plan import Costs, Rules, Tally
from pipellm.runtime.executor import Executor
from pipellm.runtime.statistics import SPECULATION, Statistics
from pipellm.transfers import CHUNK

LOG_VARIABLE = "PIPELLM_LOG"
"""`debug` tells the story of every copy on standard error."""

_executors: dict[int, Executor] = {}


def install(
    driver: _native.Driver,
    rules: Rules,
    profile: Profile,
    speed: Engines,
    statistics: Statistics,
) -> None:
    """Has each device of `driver` planned by `rules` from its first use on."""
    statistics.declare((*_native.COUNTERS, *SPECULATION))
    if os.environ.get(LOG_VARIABLE, "").lower() == "debug":
        logging.basicConfig(format="pipellm: %(message)s")
        logging.getLogger("pipellm").setLevel(logging.DEBUG)
    costs = Costs(
        nop_ns=round(profile.on.h2d.pageable.toll_us * 1e3),
        seal_ns=round(CHUNK / speed.gigabytes_per_second[speed.fastest] / threads()),
    )

    def plan(device: int, context: _native.Context) -> None:
        executor = Executor(context, device, rules, costs, _reporter(statistics))
        _executors[device] = executor
        context.set_runtime(executor, threads=threads(), arena_messages=rules.budget_chunks)
        atexit.register(_close, executor, os.getpid())

    driver.on_context(plan)


def executor(device: int) -> Executor | None:
    """What plans the copies of a device, if they are planned and it has been used."""
    return _executors.get(device)


def threads() -> int:
    """Threads to seal with: the cores that this process may use, but for the program's own."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


def _close(executor: Executor, owner: int) -> None:
    # A forked child inherits the exit handler, but neither the threads nor the device behind it.
    if os.getpid() == owner:
        executor.close()


def _reporter(statistics: Statistics) -> Callable[[Tally], None]:
    counters = statistics.counters
    first = len(_native.COUNTERS)
    last: list[int] = [0] * len(SPECULATION)

    def report(tally: Tally) -> None:
        now = [
            tally.hits,
            tally.misses,
            *(tally.by_pattern[name] for name in ("repetitive", "fifo", "lifo", "told")),
            tally.nops,
            tally.reorders,
            tally.relinquishes,
            tally.stale,
            tally.late,
        ]
        # By difference: several devices count in the same place.
        for index, (value, before) in enumerate(zip(now, last, strict=True)):
            if value != before:
                counters[first + index] += value - before
        last[:] = now

    return report
