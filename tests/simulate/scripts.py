"""Programs and machines for the tests, in round numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from pipellm.gpu.emulated.profile import Cost, Costs, Link, Profile, load
from pipellm.gpu.emulated.profile_table import Curve
from pipellm.runtime.policy import Policy
from pipellm.simulate.host import Host
from pipellm.simulate.machine import Machine, Run
from pipellm.simulate.planned import Planned
from pipellm.transfers import CHUNK, Direction
from pipellm.workloads.events import Copy, Done, Event

US = 1e-6
PLENTY = 1e9  # GB/s: takes no time that matters


def mib_per(microseconds: float) -> float:
    """A rate in GB/s, by what one MiB takes."""
    return CHUNK / microseconds / 1e3


HOST = Host(
    cores=2,
    libcrypto=mib_per(200),
    seal=mib_per(100),
    copy=mib_per(50),
    memory=PLENTY,
    scan=PLENTY,
    decision=0.0,
)


def _link(us_per_mib: float, toll: float, launch: float, *, duplex: bool) -> Link:
    engine = Curve(((0, 0.0), (CHUNK, us_per_mib)))
    cost = Cost(engine, engine if not toll else None, toll)
    return Link(launch, duplex, Costs(cost, cost), Costs(cost, cost))


PROFILE: Profile = replace(
    load("fast"),
    off=_link(50, 0, 5, duplex=True),
    on=_link(100, 10, 5, duplex=False),
)
"""50 µs for a MiB with confidential computing off, 100 with it, after a toll of 10."""


def load_of(buffer: int, chunks: float = 1, *, blocking: bool = False, stream: int = 0) -> Copy:
    """A swap-in of one of the program's buffers."""
    nbytes = int(chunks * CHUNK)
    return Copy(
        Direction.H2D, (buffer + 1) << 32, nbytes, (buffer + 1) << 40, stream, blocking=blocking
    )


def store_of(buffer: int, chunks: float = 1, *, blocking: bool = False, stream: int = 0) -> Copy:
    """A swap-out to it."""
    return replace(
        load_of(buffer, chunks, blocking=blocking, stream=stream), direction=Direction.D2H
    )


@dataclass(frozen=True)
class Script:
    """A program that does what it was told, and notes the time before each event."""

    told: Sequence[Event]
    name: str = "script"
    model: str = "none"
    unit: str = "rounds"

    def events(self, now: Callable[[], float]) -> Iterator[Event]:
        yield from self.told
        yield Done()


class Watched(Script):
    """The same, which keeps the times."""

    def events(self, now: Callable[[], float]) -> Iterator[Event]:
        times = self.__dict__.setdefault("times", [])
        for event in super().events(now):
            times.append(now())
            yield event
            times.append(now())


def play(
    events: Sequence[Event], policy: str, host: Host = HOST, profile: Profile = PROFILE
) -> Run:
    """What comes of the events in a case."""
    return Machine(profile, host, Policy.named(policy)).run(Script(events), 1)


def planned(events: Sequence[Event], host: Host = HOST) -> tuple[Run, Planned]:
    """The same under `pipelined`, and the device it was done on."""
    machine = Machine(PROFILE, host, Policy.named("pipelined"))
    run = machine.run(Script(events), 1)
    return run, only(Planned, machine.device)


_Kind = TypeVar("_Kind")


def only(kind: type[_Kind], value: object) -> _Kind:
    """`value`, which is a `kind`."""
    assert isinstance(value, kind)
    return value
