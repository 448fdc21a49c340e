"""The workloads that `pipellm bench` replays, each as large as this machine's memory allows.

Copies are replayed with real bytes, so a model is cut: one of so many layers, each as large as in
the whole model, and as many fewer words. A pass over the part costs the link and the GPU that share
of a pass over the whole, so throughput is divided by it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipellm.bench import stage
from pipellm.errors import UserError
from pipellm.runtime.planning import spare_memory
from pipellm.trace.replay import Recorded
from pipellm.workloads.events import Workload
from pipellm.workloads.flexgen import FlexGen
from pipellm.workloads.lengths import Lengths
from pipellm.workloads.models import Model
from pipellm.workloads.peft import PeftLora
from pipellm.workloads.random_order import RandomOrder
from pipellm.workloads.vllm import VllmSwap


@dataclass(frozen=True, slots=True)
class Case:
    """One workload on one model."""

    key: str
    """How a user names it."""
    make: Callable[[], Workload]
    warm: int
    """So many rounds (up to a Done) come before what is measured,"""
    learning: int = 0
    """and so many more for who has to learn them."""
    parts: int = 1
    """One of so many parts of the model is replayed."""
    recorded: Recorded | None = None
    """Where it comes from, if a program was recorded: it is run from begin to end, once."""

    @property
    def label(self) -> str:
        return "replayed" if self.parts == 1 else f"replayed, 1 of {self.parts} layers"


def _flexgen(name: str, parts: int, *, four_bit: bool = False) -> Case:
    model = Model.named(name).cut(parts)
    return Case(f"flexgen-{name}", lambda: FlexGen(model, four_bit=four_bit), 1, 3, parts)


def _vllm(name: str, lengths: str, parallel: int, *, layered: bool = False) -> Case:
    workload = VllmSwap(
        Model.named(name), Lengths.named(lengths), parallel=parallel, layered=layered
    )
    return Case(f"vllm-{name}-{lengths}{'-layered' * layered}", lambda: workload, 40)


def _peft(name: str, parts: int) -> Case:
    return Case(f"peft-{name}", lambda: PeftLora(Model.named(name).cut(parts)), 1, 2, parts)


CASES = {
    case.key: case
    for case in (
        _flexgen("opt-30b", 16),
        _flexgen("opt-66b", 32),
        _flexgen("opt-175b", 48, four_bit=True),
        _vllm("opt-13b", "sharegpt", 2),
        _vllm("opt-30b", "sharegpt", 2),
        _vllm("opt-30b", "alpaca", 6),
        _vllm("opt-30b", "sharegpt", 2, layered=True),
        _peft("opt-13b", 20),
        _peft("opt-30b", 24),
        Case("random", RandomOrder, 30, 270),
    )
}


def recorded(what: Recorded) -> Case:
    """A recorded program. Raises UserError if there is none such."""
    trace = what.trace()
    needed, spare = stage.room(step.event for step in trace.steps), spare_memory()
    if needed > spare:
        raise UserError(
            f"{what.file} cannot be replayed here: its buffers take {needed / 1e9:,.1f} GB, and "
            f"{spare / 1e9:,.1f} GB of memory are free"
        )
    return Case(trace.name, lambda: trace, warm=0, recorded=what)


def chosen(wanted: str) -> list[Case]:
    """The cases whose key begins with `wanted`; none if there is no such case."""
    return [case for key, case in CASES.items() if key == wanted or key.startswith(f"{wanted}-")]
