"""The doctor's findings, for a person or for a program."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipellm.channel.engines import LIBCRYPTO, Engines
from pipellm.doctor.check import Check, Status
from pipellm.doctor.machine import Machine

_STYLES = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red"}


def print_table(checks: Sequence[Check], console: Console) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        # As text: what a machine says of itself is not markup.
        words = Text(check.detail)
        if check.remedy is not None:
            words.append(f"\n-> {check.remedy}", style="bold")
        table.add_row(Text(check.status, style=_STYLES[check.status]), Text(check.name), words)
    console.print(table)


def as_json(machine: Machine, checks: Sequence[Check]) -> str:
    engines = Engines(dict(machine.sealing.engines_gbps))
    speeds = engines.gigabytes_per_second
    findings = {
        "checks": [
            {"name": c.name, "status": c.status, "detail": c.detail, "remedy": c.remedy}
            for c in checks
        ],
        "engine": engines.fastest,
        "seal_gbps": round(speeds[engines.fastest], 2),
        "libcrypto_gbps": round(speeds[LIBCRYPTO], 2),
    }
    return json.dumps(findings, indent=2)


def exit_status(checks: Sequence[Check]) -> int:
    return int(any(check.status is Status.FAIL for check in checks))
