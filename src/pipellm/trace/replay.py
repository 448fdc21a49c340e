"""Asks of the emulated device what a recorded program asked, with real bytes, under one policy.

    python -m pipellm.trace.replay '{"file": "flexgen.trace", "policy": "paper", ...}'

is one replay in a process of its own, which prints one JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipellm.errors import UserError
from pipellm.trace.file import load
from pipellm.trace.trace import Timed, Trace
from pipellm.workloads.events import Copy, Idle, Write

_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Replay:
    """What to replay, and under what."""

    file: str
    number: int | None
    policy: str
    profile: str
    idle: bool
    """Whether the host's own time is kept."""

    def run(self) -> dict[str, float]:
        """What was seen (pipellm.bench.measure.Measured), from a process of its own.

        Raises UserError if it failed.
        """
        done = subprocess.run(
            [sys.executable, "-m", "pipellm.trace.replay", json.dumps(asdict(self))],
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"the replay under policy {self.policy} failed: {reason}")
        seen: dict[str, float] = json.loads(done.stdout)
        return seen

    def trace(self) -> Trace:
        """The trace, fit to be replayed."""
        return apart(load(Path(self.file)).trace(self.number), idle=self.idle)


def apart(trace: Trace, *, idle: bool = True) -> Trace:
    """The same with host buffers that do not overlap, in the order in which they were.

    A program may copy the whole of a buffer and then a part; a replayer checks each destination by
    what its source held, and so wants to know one from the other. Without `idle` the host's own
    time is left out.
    """
    places = sorted(
        {
            (step.event.address, step.event.nbytes)
            for step in trace.steps
            if isinstance(step.event, Copy | Write)
        }
    )
    moved: dict[tuple[int, int], int] = {}
    free = _PAGE
    for place in places:
        moved[place] = free
        free += -(-place[1] // _PAGE) * _PAGE

    def steps() -> Iterator[Timed]:
        for at, event in trace.steps:
            if isinstance(event, Idle) and not idle:
                continue
            if isinstance(event, Copy | Write):
                event = replace(event, address=moved[event.address, event.nbytes])
            yield Timed(at, event)

    return replace(trace, steps=tuple(steps()))


def main() -> None:
    from pipellm.bench.cases import Case
    from pipellm.bench.measure import Order, measure

    what = Replay(**json.loads(sys.argv[1]))
    trace = what.trace()
    order = Order(trace.name, what.policy, what.profile, link_gbps=0.0, seconds=0.0, rounds=1)
    print(json.dumps(asdict(measure(order, Case(trace.name, lambda: trace, warm=0)))))


if __name__ == "__main__":
    main()
