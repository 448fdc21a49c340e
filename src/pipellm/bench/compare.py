"""Policies side by side: every measurement in a process of its own, interleaved, repeated.

First `ideal` runs for the time asked for; that says how much work everybody gets. Then each
repetition runs every policy once, one right after the other, since machines drift. Ratios are taken
within a repetition.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from pipellm.attach.libcrypto import program_environment
from pipellm.bench.cases import Case
from pipellm.bench.contenders import Contender
from pipellm.bench.measure import Measured, Order
from pipellm.bench.scaled import Scale
from pipellm.bench.spread import Spread
from pipellm.channel import engines
from pipellm.doctor.probe import processor
from pipellm.errors import UserError
from pipellm.own_folder import OwnFolder

OFF, IDEAL, SERIAL = "off", "ideal", "serial"


@dataclass(frozen=True, slots=True)
class Row:
    """One workload under one policy."""

    case: Case
    workload: str
    model: str
    unit: str
    policy: str
    """The contender's name."""
    profile: str
    paced: str
    """What was held back to the speed of the modelled host, in words; empty if nothing."""
    throughput: Spread
    """Units per second of the whole model."""
    of_off: Spread
    of_ideal: Spread
    over_serial: Spread | None
    hit_rate: Spread | None
    seal_gbps: Spread | None
    """Sealed and opened on the host."""
    units: int
    """Done in each repetition, after the case's warm rounds; of the part that was replayed."""
    host_gbps: dict[str, float]
    """What one core of the host did meanwhile (bench.measure), in the median."""
    cores: Spread
    """Busy with the program's copies, what plays the device left out."""
    cpu_s_per_gb: Spread | None
    """Seconds of a core of this host, for each GB (10^9 bytes) that was copied, if any was."""
    limit: str
    """What the host, not the design, lacks; empty if nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to compare, and how long."""

    cases: Sequence[Case]
    policies: Sequence[str]
    """Contenders, by name."""
    profile: str
    scale: Scale | None
    """Of profile `scaled`."""
    seconds: float
    repeats: int

    @property
    def measurements(self) -> int:
        """How many processes that takes."""
        first = sum(case.recorded is None for case in self.cases)
        return first + len(self.cases) * self.repeats * len(self._all)

    @property
    def _all(self) -> list[str]:
        # Whatever is asked for, these two are what it is held against.
        return list(dict.fromkeys((*self.policies, OFF, IDEAL)))

    def run(self, begins: Callable[[str], None], ended: Callable[[Sequence[Row]], None]) -> None:
        """Calls `begins` before each measurement, `ended` with the rows of each case."""
        environments = self._environments()
        for case in self.cases:
            rounds = 1
            if case.recorded is None:
                begins(f"{case.key}: how much work")
                rounds = _measure(self._order(case, IDEAL), os.environ).rounds
            repetitions: list[dict[str, Measured]] = []
            for number in range(self.repeats):
                repetition = {}
                for name in self._all:
                    begins(f"{case.key}: {name}, {number + 1} of {self.repeats}")
                    repetition[name] = _measure(self._order(case, name, rounds), environments[name])
                repetitions.append(repetition)
            ended(
                [
                    row(case, name, self.profile, repetitions, self._paced(name))
                    for name in self.policies
                ]
            )

    def _environments(self) -> dict[str, Mapping[str, str]]:
        """Of each contender. Only who is attached needs a libcrypto that can be attached to."""
        return {
            name: program_environment(OwnFolder.of_this_user(), os.environ)
            if Contender.named(name).attached
            else os.environ
            for name in self._all
        }

    def _order(self, case: Case, name: str, rounds: int = 0) -> Order:
        return Order(
            *(case.key, name, self.profile, self.scale, self.seconds, rounds),
            recorded=case.recorded,
        )

    def _paced(self, name: str) -> str:
        pace = self.scale.pace(Contender.named(name)) if self.scale else None
        return pace.in_words if pace else ""


def row(
    case: Case, name: str, profile: str, repetitions: Sequence[dict[str, Measured]], paced: str = ""
) -> Row:
    """What the repetitions say of one contender."""
    mine = [repetition[name] for repetition in repetitions]
    policy = Contender.named(name).policy
    workload = case.make()

    def over(other: str) -> Spread:
        return Spread.of(r[name].throughput / r[other].throughput for r in repetitions)

    planned = policy.foresees
    of_ideal = over(IDEAL)
    return Row(
        case=case,
        workload=workload.name,
        model=workload.model,
        unit=f"{workload.unit}/s",
        policy=name,
        profile=profile,
        paced=paced,
        throughput=Spread.of(one.throughput / case.parts for one in mine),
        of_off=over(OFF),
        of_ideal=of_ideal,
        over_serial=over(SERIAL) if SERIAL in repetitions[0] else None,
        hit_rate=Spread.of(one.hits / max(one.hits + one.misses, 1) for one in mine)
        if planned
        else None,
        seal_gbps=Spread.of(one.sealed_bytes / one.seconds / 1e9 for one in mine)
        if policy.sealed
        else None,
        units=mine[0].units,
        host_gbps={name: median(one.host_gbps[name] for one in mine) for name in mine[0].host_gbps},
        cores=Spread.of(one.cpu_s / one.host_seconds for one in mine),
        cpu_s_per_gb=Spread.of(one.cpu_s / (one.copied_bytes / 1e9) for one in mine)
        if all(one.copied_bytes for one in mine)
        else None,
        limit=limit(mine, of_ideal.median) if planned else "",
    )


def limit(mine: Sequence[Measured], of_ideal: float) -> str:
    """What the host lacks where a policy that plans stays behind `ideal`, if it is the host."""
    if of_ideal >= 0.95:
        return ""
    from pipellm.runtime.planning import threads

    busy = median(one.pool_cpu_s / one.host_seconds for one in mine) / threads()
    if busy > 0.9:
        return "cores"
    speed = engines.measured()
    alone = speed.gigabytes_per_second[speed.fastest] * 1e9
    ahead = median(one.ahead_bytes_per_cpu_s for one in mine)
    if 0 < ahead < 0.6 * alone:
        return "memory, or other programs"
    return ""


def machine(scale: Scale | None) -> dict[str, object]:
    """What was measured on, for whoever reads the figures later."""
    return {
        "processor": processor().model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "engines_gbps": engines.measured().gigabytes_per_second,
        "load": os.getloadavg()[0],
        "scaled": asdict(scale) | {"slowdown": scale.slowdown} if scale else None,
    }


def as_json(row: Row) -> dict[str, object]:
    """One row for a file; each figure that was measured has a `..._spread` of least and most."""
    values: dict[str, object] = {
        "workload": row.workload,
        "model": row.model,
        "policy": row.policy,
        "profile": row.profile,
        "label": row.case.label,
        "unit": row.unit,
        "paced": row.paced or None,
        "limit": row.limit or None,
        "units": row.units,
        "host_gbps": row.host_gbps,
    }
    for name in ("throughput", "of_off", "of_ideal", "over_serial", "hit_rate", "seal_gbps"):
        _put(values, name, getattr(row, name))
    _put(values, "cores", row.cores)
    _put(values, "cpu_s_per_gb", row.cpu_s_per_gb)
    return values


def _put(values: dict[str, object], name: str, spread: Spread | None) -> None:
    values[name] = None if spread is None else spread.median
    values[f"{name}_spread"] = None if spread is None else [spread.least, spread.most]


def _measure(order: Order, environment: Mapping[str, str]) -> Measured:
    command = [sys.executable, "-m", "pipellm.bench.measure", json.dumps(asdict(order))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise UserError(f"{order.case} under {order.contender} failed: {last[0]}")
    return Measured(**json.loads(done.stdout))
