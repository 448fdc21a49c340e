"""Runs an evaluation: every experiment in every case, compared with `off` and `ideal`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import islice

from pipellm.runtime.policy import POLICIES
from pipellm.simulate.host import Host
from pipellm.simulate.paper import Experiment
from pipellm.simulate.point import Point, Row
from pipellm.simulate.sweep import Runner


def points(
    experiments: Sequence[Experiment],
    profiles: Sequence[str],
    settings: Sequence[tuple[str, Host]],
) -> list[Point]:
    """Each program on each machine in all cases, `off` first."""
    return [
        Point(experiment, case, profile, host, setting)
        for profile in profiles
        for experiment in experiments
        for setting, host in settings
        for case in POLICIES
    ]


def evaluate(points: Sequence[Point], run: Runner) -> Generator[list[Row]]:
    """The rows of `points` as made above, a list for each program on each machine."""
    with closing(run(points)) as coming:
        while group := {row.case: row for row in islice(coming, len(POLICIES))}:
            yield [row.compared(group["off"], group["ideal"]) for row in group.values()]
