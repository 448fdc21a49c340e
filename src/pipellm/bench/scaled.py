"""The profile `scaled`: the paper's server, in slow motion.

A small host beside the link of an H100 would measure nothing but its own lack of cores. So the
whole server goes slower by one factor, the *slowdown*: link, device, tolls, launches, and the
cipher that is shipped. One core of this host then stands for that many of the server's. Times are
the server's own, so figures compare with those of profile `h100`. docs/benchmarks.md derives why
the proportions are the server's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from pipellm import _native
from pipellm.bench.contenders import Contender
from pipellm.channel import engines
from pipellm.gpu.emulated.profile import Cost, Costs, Link, Profile, load
from pipellm.gpu.emulated.profile_table import Curve
from pipellm.simulate.host import HOSTS, Host
from pipellm.transfers import CHUNK

NAME = "scaled"
SERVER = HOSTS["server"]
_BASE = "h100"
_TRIES, _TRY_SECONDS = 60, 0.05
_SPLIT_FROM = 512 << 10
"""Bytes of a message from which on the provider splits it (native/provider/gcm_ipsec_mb.cpp),"""
_SPLIT_OVER = 8
"""and over how many of the server's cores (native/provider/team.cpp)."""
_JOINING_US = 9.0
"""What it takes to have them begin and end together. Measured (pipellm.bench.provider, the best of
five): two cores of a Zen 4 took 59.6 µs for 1 MiB, where half of one's time was 50.7 µs."""
_FAR = 64 << 20


@dataclass(frozen=True, slots=True)
class Pace:
    """At what rate the calling thread gets copies sealed, in GB (10^9 bytes) per second."""

    one: float
    """Of messages that one core seals."""
    split: float
    """Of larger ones, which several may share."""

    def microseconds(self, nbytes: int) -> float:
        """To seal so many bytes."""
        return max(min(nbytes, _SPLIT_FROM) / self.one, nbytes / self.split) / 1e3

    @property
    def in_words(self) -> str:
        most = f" to {self.split:.3g}" if self.split > self.one else ""
        return f"sealing, {self.one:.3g}{most} GB/s"


@dataclass(frozen=True, slots=True)
class Scale:
    """How this host stands for the paper's server."""

    seal_gbps: float
    """What one core of this host seals with the fastest engine."""
    together_gbps: float
    """What all the threads that seal ahead do together."""

    @property
    def slowdown(self) -> float:
        """How many times slower than the server everything goes that is not our own work.

        So that the threads of this host seal as much while its link carries a byte as the server's
        do; not below 1: a host that is larger than the server seals more.
        """
        return max(1.0, SERVER.sealing(SERVER.workers) / 1e9 / self.together_gbps)

    def pace(self, contender: Contender) -> Pace | None:
        """How fast the server seals on the calling thread; None where nothing of the kind is done.

        As shipped, by its libcrypto. With the provider, by cores like this one's.
        """
        if not contender.policy.sealed or contender.policy.rules is not None:
            return None
        if contender.served:
            together_us = CHUNK / (_SPLIT_OVER * self.seal_gbps) / 1e3 + _JOINING_US
            return Pace(self.seal_gbps, CHUNK / together_us / 1e3)
        return Pace(SERVER.libcrypto, SERVER.libcrypto)

    def profile(self, contender: Contender) -> Profile:
        """The server's GPU and link, with the pace of the calling thread."""
        base = replace(load(_BASE), source=NAME)
        pace = self.pace(contender)
        return base if pace is None else replace(base, on=_paced(base.on, pace))

    def host(self, here: Host) -> Host:
        """The host that is played on `here`: as many cores of its kind as they stand for."""
        workers = max(1, round(self.slowdown * here.workers))
        return replace(
            here,
            cores=workers + 1,
            libcrypto=self.slowdown * here.libcrypto,  # never what limits: the pace does
            memory=self.slowdown * here.memory,
        )


def measured() -> Scale:
    """Of this host, in some seconds: the best of many tries.

    Neighbours can only slow a machine down, and a scale that was set by a moment at which they had
    the cores would be a test of nothing.
    """
    fastest = engines.measured().fastest
    workers = max(1, len(os.sched_getaffinity(0)) - 1)

    def best(threads: int) -> float:
        tries = (_native.measure_seal(fastest, _TRY_SECONDS, threads) for _ in range(_TRIES))
        return max(tries) / 1e9

    one = best(1)
    return Scale(one, one if workers == 1 else max(one, best(workers)))


def _paced(link: Link, pace: Pace) -> Link:
    def paced(costs: Costs) -> Costs:
        return Costs(_call(costs.pinned, pace), _call(costs.pageable, pace))

    return replace(link, h2d=paced(link.h2d), d2h=paced(link.d2h))


def _call(cost: Cost, pace: Pace) -> Cost:
    """With a call that takes the toll, the sealing, and the engine's time of the last message.

    Sealing goes on while the engine has the messages before it.
    """
    sizes = sorted({0, _SPLIT_FROM, CHUNK, round(_SPLIT_FROM * pace.split / pace.one), _FAR})
    knots = (
        (
            nbytes,
            cost.toll_us + pace.microseconds(nbytes) + cost.engine.microseconds(min(nbytes, CHUNK)),
        )
        for nbytes in sizes
    )
    return replace(cost, call=Curve(tuple(knots)))
