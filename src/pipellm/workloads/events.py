"""What a program does that matters to the link: the vocabulary of workloads and traces.

A workload says it, a trace has recorded it; `bench` replays it in real time, `simulate` in virtual
time. Host and device addresses are numbers that tell buffers apart; whoever replays them decides
where the bytes lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from pipellm.transfers import Direction


@dataclass(frozen=True, slots=True)
class Copy:
    """The program asks for a copy of `nbytes` between host and device."""

    direction: Direction
    address: int
    """The host side."""
    nbytes: int
    device_address: int
    stream: int = 0
    blocking: bool = False
    """The call returns when the host side may be touched again."""
    pinned: bool = True


@dataclass(frozen=True, slots=True)
class Compute:
    """The program gives a stream kernels to run. How long they take is the device's affair."""

    flops: float
    """Floating-point operations, a multiply-add being two."""
    nbytes: float
    """Bytes of device memory read and written."""
    stream: int = 0
    kernels: int = 1
    """How many launches that is."""


@dataclass(frozen=True, slots=True)
class Synchronize:
    """The program waits for all that was asked for on a stream (None: on the device)."""

    stream: int | None = None


@dataclass(frozen=True, slots=True)
class StreamWait:
    """A stream waits for all that another was given so far: an event recorded and awaited."""

    stream: int
    awaited: int


@dataclass(frozen=True, slots=True)
class Write:
    """The program changes host memory: what was sealed of it is stale."""

    address: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Idle:
    """The program's host thread does other things, or waits for a request, for `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Done:
    """`units` of the workload's work (tokens, samples) are finished on the host's side."""

    units: int = 1


Event = Copy | Compute | Synchronize | StreamWait | Write | Idle | Done


class Workload(Protocol):
    """A program, as far as the link is concerned."""

    @property
    def name(self) -> str:
        """The system and what it does: `flexgen`, `vllm-swap`, `peft`, `random`."""
        ...

    @property
    def model(self) -> str:
        """The model's name: `opt-30b`."""
        ...

    @property
    def unit(self) -> str:
        """What `Done` counts: `tokens`, `samples`."""
        ...

    def events(self, now: Callable[[], float]) -> Iterator[Event]:
        """What the program does, in order.

        `now` tells the seconds since its start on the replayer's clock: a server's next step
        depends on which requests have arrived by then. It is asked between events, so a replayer
        must have done each event before it takes the next.
        """
        ...
