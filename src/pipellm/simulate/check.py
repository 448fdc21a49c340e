"""Simulated beside measured: every workload of `pipellm bench`, on this host.

What one core does was measured beside each figure, since a shared machine is not as fast at every
hour; how long the planner thinks is measured for each program, with the program; the rest at the
start. It is held against the fastest of the repetitions: nobody simulates the neighbours, who can
only slow a machine down. A benchmark, so no part of the tests.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from pipellm.bench import cases, scaled
from pipellm.bench import command as bench
from pipellm.errors import UserError
from pipellm.gpu.emulated.profile import Profile, load
from pipellm.output import write_json
from pipellm.runtime.policy import POLICIES, Policy
from pipellm.simulate import here, thinking
from pipellm.simulate.host import Host
from pipellm.simulate.machine import Machine

GOAL, LIMIT = 0.10, 0.15
_SECONDS = 3.0
_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """What a workload did under a policy on this host."""

    case: cases.Case
    policy: str
    profile: Profile
    throughput: float
    """Units per second, of the part of the model that was replayed; of the fastest repetition."""
    units: int
    """Done meanwhile."""
    host_gbps: dict[str, float]
    """What one core of the host did meanwhile."""


def run(file: Path | None, console: Console, json_path: Path | None = None) -> int:
    """Prints the comparison, and writes it to `json_path` if there is one.

    Returns 1 if a simulated throughput is off by more than `LIMIT`. Raises UserError for a file
    that `pipellm bench` has not written.
    """
    measured = _read(file) if file else _bench()
    host = here.measured()
    quantities = ", ".join(f"{name} {value:.4g}" for name, value in asdict(host).items())
    console.print(f"This host, measured: {quantities} (GB/s; decision in µs).", highlight=False)
    table = Table(title="units/s: measured on this host (fastest repetition), and simulated of it")
    for heading in ("workload", "policy", "profile"):
        table.add_column(heading)
    for heading in ("measured", "simulated", "ratio", "verdict"):
        table.add_column(heading, justify="right")
    failed, rows = 0, list[dict[str, Any]]()
    for found in measured:
        simulated = _simulated(found, host)
        ratio = simulated / found.throughput
        off_by = abs(ratio - 1)
        failed += off_by > LIMIT
        verdict = "ok" if off_by <= GOAL else "near" if off_by <= LIMIT else "off"
        table.add_row(
            *(found.case.key, found.policy, found.profile.source),
            *(f"{found.throughput:.4g}", f"{simulated:.4g}", f"{ratio:.2f}", verdict),
        )
        rows.append(
            {
                "workload": found.case.key,
                "policy": found.policy,
                "profile": found.profile.source,
                "measured": found.throughput,
                "simulated": simulated,
            }
        )
    console.print(table)
    if json_path is not None:
        write_json(json_path, {"host": asdict(host), "limit": LIMIT, "rows": rows})
    return 1 if failed else 0


def _simulated(found: Measured, host: Host) -> float:
    case, policy = found.case, Policy.named(found.policy)
    if policy.sealed:  # a core plays the device, and opens and seals there as much as the host does
        host = host.with_("cores", max(1, host.cores - 1))
    for name, gbps in found.host_gbps.items():
        host = host.with_(name, gbps)
    if policy.rules is not None:
        decision = thinking.microseconds(case.make(), policy.rules, warm=case.warm)
        host = host.with_("decision", decision)
    machine = Machine(found.profile, host, policy)
    return machine.run(case.make(), found.units, warm=case.warm).throughput


def _bench() -> list[Measured]:
    """By running all of it."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "bench.json"
        bench.run(
            [],
            [],
            scaled.NAME,
            seconds=_SECONDS,
            repeats=_REPEATS,
            json_path=file,
            plot_path=None,
        )
        return _read(file)


def _read(file: Path) -> list[Measured]:
    """From what `pipellm bench --json` wrote. Raises UserError if it is something else."""
    found = []
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        for row in document["rows"]:
            if row["policy"] not in POLICIES:
                continue
            case = _case(row)
            profile = _profile(row["profile"], document["machine"])
            throughput = float(row["throughput_spread"][1]) * case.parts
            found.append(
                Measured(
                    *(case, row["policy"], profile, throughput),
                    *(int(row["units"]), dict(row["host_gbps"])),
                )
            )
    except OSError as error:
        raise UserError(f"--check {file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--check {file}: not what `pipellm bench --json` writes: {error!r}"
        ) from None
    return found


def _case(row: dict[str, Any]) -> cases.Case:
    for case in cases.CASES.values():
        workload = case.make()
        if (workload.name, workload.model) == (row["workload"], row["model"]):
            return case
    raise KeyError(row["workload"], row["model"])


def _profile(name: str, machine: dict[str, Any]) -> Profile:
    return scaled.scaled(machine["scaled_link_gbps"]) if name == scaled.NAME else load(name)
