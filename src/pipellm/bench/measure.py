"""One measurement, in a process of its own: one workload under one policy.

    python -m pipellm.bench.measure '{"case": "random", "contender": "pipelined", ...}'

Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass

from pipellm import _native
from pipellm.bench.cases import CASES, recorded
from pipellm.bench.contenders import Contender
from pipellm.bench.scaled import Scale
from pipellm.bench.stage import Stage
from pipellm.channel import engines
from pipellm.gpu.emulated.profile import Profile, load
from pipellm.gpu.roofline import Roofline
from pipellm.runtime.opening import open_under
from pipellm.runtime.prefetching import PREFETCHING
from pipellm.runtime.speculation import SPECULATION
from pipellm.runtime.statistics import Statistics
from pipellm.trace.replay import Recorded

_SCENE_BYTES = 512 << 20
_HOST_SECONDS = 0.1
_PATIENCE = 10  # times what was asked for: where the link costs nothing, that would be terabytes


@dataclass(frozen=True, slots=True)
class Order:
    """What to measure."""

    case: str
    contender: str
    profile: str
    scale: Scale | None
    """Of profile `scaled`."""
    seconds: float
    """That the measured part takes here, at least; unless `rounds` says how much to do, or the
    emulated clock stands still for so much of it that it would take ten times as long."""
    rounds: int = 0
    recorded: Recorded | None = None
    """What to replay, if it is none of CASES."""

    @staticmethod
    def parse(text: str) -> Order:
        """From JSON."""
        fields = json.loads(text)
        if (what := fields.pop("recorded")) is not None:
            what = Recorded(**what)
        if (scale := fields.pop("scale")) is not None:
            scale = Scale(**scale)
        return Order(**fields, recorded=what, scale=scale)

    @property
    def slowdown(self) -> float:
        """How many times slower than this host's clock the emulated machine's goes."""
        return self.scale.slowdown if self.scale else 1.0

    def machine(self) -> Profile:
        """What is emulated."""
        if self.scale is None:
            return load(self.profile)
        return self.scale.profile(Contender.named(self.contender))


@dataclass(frozen=True, slots=True)
class Measured:
    """What was seen."""

    seconds: float
    """Of the emulated machine's time."""
    host_seconds: float
    """The same on this host's clock, what the emulated one stood still left out."""
    rounds: int
    units: int
    checked_bytes: int
    hits: int
    misses: int
    copied_bytes: int
    """Between host and device, both ways."""
    sealed_bytes: int
    """Sealed and opened on the host, whether it was of use or not."""
    cpu_s: float
    """Of the host's cores, but for what played the device and what only waited."""
    pool_cpu_s: float
    """Of that, the threads that seal and open beside the program's."""
    device_cpu_s: float
    paused_s: float
    """How long the emulated clock stood still for what played the device."""
    ahead_bytes_per_cpu_s: float
    """How fast one thread sealed ahead, by this host's clock; 0 if none did."""
    host_gbps: dict[str, float]
    """What one core of this host did just then: `libcrypto`, `seal` (the fastest engine), `copy`.
    A shared machine is not as fast at every hour."""

    @property
    def throughput(self) -> float:
        """Units per second of the emulated machine's time."""
        return self.units / self.seconds


def measure(order: Order) -> Measured:
    """Replays the case under the policy, and checks every byte. Raises WrongBytesError."""
    case = recorded(order.recorded) if order.recorded else CASES[order.case]
    policy = Contender.named(order.contender).policy
    profile = order.machine()
    statistics = Statistics(None)
    driver = open_under(policy, profile, 1, statistics, clock=_native.RealClock(order.slowdown))
    roofline = Roofline.of(profile, confidential=policy.confidential)
    clock = driver.clock
    events = case.make().events(lambda: clock.now() * 1e-9)
    planned = policy.foresees
    stage = Stage(driver, events, roofline, _SCENE_BYTES, charged=planned)
    checked = warm = rounds = units = 0
    first = case.warm + (case.learning if planned else 0)
    while warm < first:
        scene = stage.prepare(first - warm)
        stage.play(scene)
        checked += stage.check(scene)
        warm += scene.rounds
    meter = _Meter(driver, statistics, PREFETCHING if policy.prefetches else SPECULATION)
    seconds = played = 0.0

    def is_enough() -> bool:
        if order.rounds or not rounds:
            return rounds >= max(order.rounds, 1)
        return seconds * order.slowdown >= order.seconds or played >= _PATIENCE * order.seconds

    while not is_enough():
        scene = stage.prepare(order.rounds - rounds if order.rounds else 1 << 30)
        began = time.perf_counter()
        meter.start()
        seconds += stage.play(scene)
        meter.stop()
        played += time.perf_counter() - began
        checked += stage.check(scene)
        rounds += scene.rounds
        units += scene.units
    del stage  # the emulated clock goes on: threads that end finish what they have begun
    driver.context(0).close()
    driver.stop_threads()
    return meter.read(seconds, rounds, units, checked, sealed=policy.sealed)


def host_gbps(seconds: float) -> dict[str, float]:
    """What one core of this host does, each measured for so long; named as in simulate.Host."""
    rates = {
        "libcrypto": _native.measure_seal(engines.LIBCRYPTO, seconds),
        "seal": _native.measure_seal(engines.measured().fastest, seconds),
        "copy": _native.measure_memcpy(seconds),
    }
    return {name: rate / 1e9 for name, rate in rates.items()}


class _Meter:
    """What the process used and counted while scenes were played."""

    def __init__(
        self, driver: _native.Driver, statistics: Statistics, foreseen: tuple[str, ...]
    ) -> None:
        self._driver = driver
        self._counters = statistics.counters
        self._names = (*_native.COUNTERS, *foreseen)
        self._sums = [0] * len(self._names)
        self._cpu = self._pool = self._device = self._spun = self._paused = 0

    def start(self) -> None:
        self._count(-1)

    def stop(self) -> None:
        self._count(+1)

    def _count(self, sign: int) -> None:
        pool, device = self._driver.context(0).cpu_times
        clock = self._driver.clock
        self._cpu += sign * time.process_time_ns()
        self._pool += sign * pool
        self._device += sign * device
        self._spun += sign * clock.spun()
        for index in range(len(self._sums)):
            self._sums[index] += sign * self._counters[index]

    def read(
        self, seconds: float, rounds: int, units: int, checked: int, *, sealed: bool
    ) -> Measured:
        counted = dict(zip(self._names, self._sums, strict=True))
        copied = counted["h2d_bytes"] + counted["d2h_bytes"]
        crossed = counted["link_bytes"] or copied + counted["wasted_bytes"]
        ahead = counted["sealed_ahead_bytes"] - counted["wasted_bytes"]
        slowdown = self._driver.clock.slowdown
        hidden_s = counted["hidden_ns"] * 1e-9 * slowdown
        return Measured(
            seconds=seconds,
            host_seconds=seconds * slowdown,
            rounds=rounds,
            units=units,
            checked_bytes=checked,
            hits=counted.get("hits", counted.get("prefetch_hits", 0)),
            misses=counted.get("misses", counted.get("prefetch_misses", 0)),
            copied_bytes=copied,
            sealed_bytes=crossed if sealed else 0,
            cpu_s=max(self._cpu - self._device - self._spun, 0) * 1e-9,
            pool_cpu_s=self._pool * 1e-9,
            device_cpu_s=self._device * 1e-9,
            paused_s=counted["paused_ns"] * 1e-9,
            ahead_bytes_per_cpu_s=ahead / hidden_s if hidden_s else 0.0,
            host_gbps=host_gbps(_HOST_SECONDS),
        )


if __name__ == "__main__":
    print(json.dumps(asdict(measure(Order.parse(sys.argv[1])))))
