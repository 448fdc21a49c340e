"""How often each pattern, alone, would have foreseen the next swap-in of a trace; and all together.

As in `pipellm.bench.decisions`, nobody is ever too slow here and nothing is written to: these are
properties of the trace and of the code that predicts, not of a machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipellm.bench.decisions import Sync, hit_rate
from pipellm.predict import SURE, Predictor
from pipellm.predict.prediction import Pattern, Prediction
from pipellm.predict.ranges import Range
from pipellm.predict.repetitive import Repetitive
from pipellm.predict.returns import Returns
from pipellm.predict.sizes import Sizes
from pipellm.trace.trace import Trace
from pipellm.transfers import Direction, Transfer
from pipellm.workloads.events import Copy, Synchronize

WINDOW = 16
"""Predictions that are looked at."""

PATTERNS: dict[str, Callable[[], Pattern]] = {
    "repetitive": Repetitive,
    "fifo": lambda: Returns(newest_first=False),
    "lifo": lambda: Returns(newest_first=True),
}


@dataclass(slots=True)
class Score:
    """What one predictor said about the swap-ins of a trace. It may also say nothing."""

    swap_ins: int = 0
    next: int = 0
    """It was the first that was predicted."""
    soon: int = 0
    """It was among the first WINDOW that were predicted."""
    wrong: int = 0
    """Another was predicted first."""

    def note(self, came: Range, predictions: list[Prediction]) -> None:
        """A swap-in came, and this is what was predicted."""
        expected = [item[:2] for item in predictions if item.address is not None]
        self.swap_ins += 1
        self.next += came in expected[:1]
        self.wrong += bool(expected) and expected[0] != came
        self.soon += came in expected


def steps(trace: Trace) -> Iterator[Transfer | Sync]:
    """The trace as the planner sees it."""
    for number, (_, event) in enumerate(trace.steps):
        match event:
            case Copy(direction, address, nbytes, device_address, stream, blocking):
                where = (address, nbytes, device_address, trace.device, stream)
                yield Transfer(direction, *where, blocking=blocking, ordinal=number)
            case Synchronize():
                yield Sync()


def scores(trace: Trace) -> dict[str, Score]:
    """By pattern, and `together` for the predictor that follows who was right of late."""
    patterns = {name: make() for name, make in PATTERNS.items()}
    predictor, sizes = Predictor(), Sizes()
    found = {name: Score() for name in (*patterns, "together")}
    for step in steps(trace):
        if isinstance(step, Sync):
            predictor.sync()
            for pattern in patterns.values():
                pattern.sync()
            continue
        if not sizes.is_swap(step.nbytes):
            predictor.observe(step)
            continue
        if step.direction is Direction.H2D:
            came = (step.address, step.nbytes)
            for name, pattern in patterns.items():
                claims = pattern.predict(WINDOW) if pattern.confidence >= SURE else []
                found[name].note(came, claims)
            found["together"].note(came, predictor.predict(WINDOW))
        for pattern in patterns.values():
            pattern.observe(step, 0)
        predictor.observe(step)
    return found


def sent_ahead(trace: Trace) -> float:
    """The share of swap-ins that the planner sends from a speculation if all are sealed at once."""
    return hit_rate(steps(trace))[0]
