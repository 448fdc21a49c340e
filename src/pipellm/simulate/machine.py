"""Runs a workload in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipellm.gpu.emulated.profile import Profile
from pipellm.gpu.roofline import Roofline
from pipellm.runtime.policy import Policy
from pipellm.simulate.clock import Clock
from pipellm.simulate.device import Clear, Device, Tally
from pipellm.simulate.host import Host
from pipellm.simulate.planned import Planned
from pipellm.simulate.prefetching import Prefetching
from pipellm.simulate.serial import Serial
from pipellm.simulate.timeline import Timeline
from pipellm.workloads.events import (
    Compute,
    Copy,
    Done,
    Idle,
    StreamWait,
    Synchronize,
    Workload,
    Write,
)


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a simulated run."""

    units: int
    seconds: float
    """Virtual ones, from the start to the last unit."""
    copies: int
    nbytes: int
    """Copied, both ways."""
    tally: Tally | None

    @property
    def throughput(self) -> float:
        """Units per second."""
        return self.units / self.seconds if self.seconds else 0.0


class Machine:
    """One program on one simulated GPU, under one policy. Runs once."""

    def __init__(self, profile: Profile, host: Host, policy: Policy) -> None:
        self.clock = Clock()
        self.timeline = Timeline(duplex=profile.link(policy.confidential).duplex)
        self.device = _device(profile, host, policy, self.clock, self.timeline)
        self._roofline = Roofline.of(profile, confidential=policy.confidential)
        self._units = self._copies = self._nbytes = 0
        self._last = 0.0
        self._does: dict[type, Callable[..., None]] = {
            Copy: self._copy,
            Compute: self._compute,
            Synchronize: self._synchronize,
            StreamWait: self._stream_wait,
            Write: self._write,
            Idle: self._idle,
            Done: self._done,
        }

    def run(self, workload: Workload, units: int, *, warm: int = 0) -> Run:
        """Until so many units are done, or the program ends.

        The first `warm` rounds, each up to a Done, come before and do not count.
        """
        warm_units, warm_until = 0, 0.0
        for event in workload.events(lambda: self.clock.now):
            self._does[type(event)](event)
            if warm and isinstance(event, Done):
                warm -= 1
                warm_units, warm_until = self._units, self._last
                self._copies = self._nbytes = 0
            elif self._units - warm_units >= units:
                break
        return Run(
            self._units - warm_units,
            self._last - warm_until,
            self._copies,
            self._nbytes,
            self.device.tally,
        )

    def _copy(self, copy: Copy) -> None:
        self._copies += 1
        self._nbytes += copy.nbytes
        self.device.copy(copy)

    def _compute(self, work: Compute) -> None:
        self.device.order(work.stream)
        start = self.clock.now
        launching = self._roofline.host_seconds(work)
        busy = self._roofline.device_seconds(work)
        self.clock.spend(launching)
        kernels = max(work.kernels, 1)
        self.timeline.compute(work.stream, start + launching / kernels, busy)
        # The last kernel cannot begin before it was launched.
        self.timeline.hold(work.stream, self.clock.now + busy / kernels)

    def _synchronize(self, wait: Synchronize) -> None:
        self.device.synchronize(wait.stream)

    def _stream_wait(self, wait: StreamWait) -> None:
        self.device.order(wait.awaited)
        self.device.order(wait.stream)
        self.timeline.hold(wait.stream, self.timeline.finish(wait.awaited))

    def _write(self, write: Write) -> None:
        self.device.write(write.address, write.nbytes)

    def _idle(self, idle: Idle) -> None:
        self.clock.spend(idle.seconds)

    def _done(self, done: Done) -> None:
        self._units += done.units
        self._last = self.clock.now


def _device(
    profile: Profile, host: Host, policy: Policy, clock: Clock, timeline: Timeline
) -> Device:
    if policy.prefetches:
        return Prefetching(profile, host, clock, timeline)
    if policy.rules is not None:
        return Planned(profile, host, clock, timeline, policy.rules)
    if policy.sealed:
        return Serial(profile, host, clock, timeline)
    return Clear(profile, clock, timeline, confidential=policy.confidential)
