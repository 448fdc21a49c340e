"""Simulated beside measured: every workload of `pipellm bench`, on this host.

What one core does was measured beside each figure, since a shared machine is not as fast at every
hour; how long the planner thinks is measured for each program, with the program; the rest at the
start. It is held against the fastest of the repetitions: nobody simulates the neighbours, who can
only slow a machine down. A benchmark, so no part of the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from msgspec import Meta, Struct
from rich.table import Table

from pipellm.bench import cases, scaled
from pipellm.bench import command as bench
from pipellm.bench.contenders import Contender
from pipellm.bench.scaled import Scale
from pipellm.errors import UserError
from pipellm.gpu.emulated.profile import Profile, load
from pipellm.input import MOST_ROWS, Positive, checked, read_json
from pipellm.output import Growing, Output
from pipellm.runtime.policy import POLICIES, Policy
from pipellm.simulate import here, thinking
from pipellm.simulate.host import Host
from pipellm.simulate.machine import Machine
from pipellm.terminal.console import console
from pipellm.terminal.progress import Progress
from pipellm.terminal.table import show

GOAL, LIMIT = 0.10, 0.15
_SECONDS = 3.0
_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """What a workload did under a policy on this host."""

    case: cases.Case
    policy: str
    profile: Profile
    scale: Scale | None
    """Of profile `scaled`."""
    throughput: float
    """Units per second, of the part of the model that was replayed; of the fastest repetition."""
    units: int
    """Done meanwhile."""
    host_gbps: dict[str, float]
    """What one core of the host did meanwhile."""


def run(file: Path | None, output: Output | None = None) -> int:
    """Prints the comparison, and writes it to `output` if there is one.

    Returns 1 if a simulated throughput is off by more than `LIMIT`. Raises UserError for a file
    that `pipellm bench` has not written.
    """
    measured = _read(file) if file else _bench()
    host = here.measured()
    rows: list[dict[str, Any]] = []

    def document() -> dict[str, Any]:
        return {"host": asdict(host), "limit": LIMIT, "rows": rows}

    try:
        with (
            Growing(output, document, "rows", len(measured)) as results,
            Progress("check", len(measured)) as progress,
        ):
            for found in measured:
                progress.begins(f"{found.case.key}, {found.policy}")
                rows.append(
                    {
                        "workload": found.case.key,
                        "policy": found.policy,
                        "profile": found.profile.source,
                        "measured": found.throughput,
                        "simulated": _simulated(found, host),
                    }
                )
                results.add()
    finally:
        if rows:
            _show(rows, host)
    return 1 if any(_off_by(row) > LIMIT for row in rows) else 0


def _off_by(row: Mapping[str, Any]) -> float:
    return float(abs(row["simulated"] / row["measured"] - 1))


def _show(rows: Sequence[Mapping[str, Any]], host: Host) -> None:
    screen = console()
    quantities = ", ".join(f"{name} {value:.4g}" for name, value in asdict(host).items())
    screen.print(f"This host, measured: {quantities} (GB/s; decision in µs).")
    table = Table(title="units/s: measured on this host (fastest repetition), and simulated of it")
    for heading in ("workload", "policy", "profile"):
        table.add_column(heading)
    for heading in ("measured", "simulated", "ratio", "verdict"):
        table.add_column(heading, justify="right")
    for row in rows:
        off_by = _off_by(row)
        table.add_row(
            *(row["workload"], row["policy"], row["profile"]),
            *(f"{row['measured']:.4g}", f"{row['simulated']:.4g}"),
            f"{row['simulated'] / row['measured']:.2f}",
            "ok" if off_by <= GOAL else "near" if off_by <= LIMIT else "off",
        )
    show(screen, table)


def _simulated(found: Measured, host: Host) -> float:
    case, policy = found.case, Policy.named(found.policy)
    warm = case.warm + (case.learning if policy.rules is not None else 0)
    if policy.sealed:  # a core plays the device, and opens and seals there as much as the host does
        host = host.with_("cores", max(1, host.cores - 1))
    for name, gbps in found.host_gbps.items():
        host = host.with_(name, gbps)
    if policy.rules is not None:
        decision = thinking.microseconds(case.make(), policy.rules, warm=warm)
        host = host.with_("decision", decision)
    if found.scale is not None:
        host = found.scale.host(host)
    machine = Machine(found.profile, host, policy)
    return machine.run(case.make(), found.units, warm=warm).throughput


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


class _Row(Struct):
    """Of what `pipellm bench --json` writes, what is needed here."""

    workload: str
    model: str
    policy: str
    profile: str
    throughput_spread: tuple[Positive, Positive]
    units: Annotated[int, Meta(ge=1, le=10**9)]
    host_gbps: dict[str, Positive]


class _Scaled(Struct):
    seal_gbps: Positive
    together_gbps: Positive


class _Machine(Struct):
    scaled: _Scaled | None


class _Document(Struct):
    machine: _Machine
    rows: Annotated[list[_Row], MOST_ROWS]


def _read(file: Path) -> list[Measured]:
    """From what `pipellm bench --json` wrote. Raises UserError if it is something else."""
    try:
        document = checked(read_json(file), _Document)
        found = document.machine.scaled
        scale = Scale(found.seal_gbps, found.together_gbps) if found else None
        return [
            Measured(
                case=(case := _case(row)),
                policy=row.policy,
                profile=_profile(row, scale),
                scale=scale if row.profile == scaled.NAME else None,
                throughput=row.throughput_spread[1] * case.parts,
                units=row.units,
                host_gbps=dict(row.host_gbps),
            )
            for row in document.rows
            if row.policy in POLICIES
        ]
    except ValueError as error:
        raise UserError(
            f"--check {file}: not what `pipellm bench --json` writes: {error}"
        ) from None


def _case(row: _Row) -> cases.Case:
    for case in cases.CASES.values():
        workload = case.make()
        if (workload.name, workload.model) == (row.workload, row.model):
            return case
    raise ValueError(f"there is no workload {row.workload} on {row.model}")


def _profile(row: _Row, scale: Scale | None) -> Profile:
    if row.profile != scaled.NAME:
        return load(row.profile)
    if scale is None:
        raise ValueError("profile scaled without what it is scaled by")
    return scale.profile(Contender.named(row.policy))
