"""The paper's evaluation: which programs, on which models, how much of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pipellm.errors import unknown
from pipellm.workloads.events import Workload
from pipellm.workloads.flexgen import FlexGen
from pipellm.workloads.lengths import LENGTHS
from pipellm.workloads.models import Model
from pipellm.workloads.peft import PeftLora
from pipellm.workloads.vllm import VllmSwap

PUBLISHED_DROPS = {"opt-66b": 0.882, "opt-30b": 0.528}
"""Throughput lost to confidential computing without PipeLLM (V: the paper's abstract): OPT-66B with
its weights offloaded, OPT-30B served by vLLM."""
PUBLISHED_BOUND = 0.196
"""What PipeLLM loses at most (V: the same)."""

_MODELS = ("opt-13b", "opt-30b", "opt-66b", "opt-175b")
_SERVED = ("opt-13b", "opt-30b")  # the others leave no room for a cache on one GPU
_RATES = {"sharegpt": (1.0, 4.0, 16.0), "alpaca": (8.0, 16.0, 32.0)}  # requests per second
_ANSWERS = 6  # to each prompt: the most that the paper asks for (S)
_PASSES = 64
_TRAINING_STEPS = 6
_TOKENS = 60_000
_LAYERED_TOKENS = 12_000  # a hundred times as many copies
_SEEDS = 6
_STEPS_BEFORE = 200  # until requests leave the server as they come, or its cache is full


@dataclass(frozen=True, slots=True)
class Experiment:
    """One program, and how long it runs."""

    system: str
    """`flexgen`, `vllm` or `peft`."""
    model: str
    variant: str
    """What tells it from others of the same system and model; often empty."""
    workload: Workload
    units: int
    warm: int = 0
    """So many rounds, each up to a Done, come before what counts."""
    rate: float | None = None
    """Requests per second, of a server."""
    seeds: int = 1
    """So many runs, each with requests of its own, count together. Which requests a server preempts
    depends on its speed, so one run tells two cases apart to some hundredths only."""

    @property
    def workloads(self) -> list[Workload]:
        """What is run, one after the other."""
        if not isinstance(self.workload, VllmSwap):
            return [self.workload]
        return [replace(self.workload, seed=seed) for seed in range(self.seeds)]


def experiments(
    systems: tuple[str, ...] = (), models: tuple[str, ...] = ()
) -> Iterator[Experiment]:
    """All of them, or those of some systems and models. Raises UserError for unknown names."""
    for wanted, known in ((systems, SYSTEMS), (models, _MODELS)):
        for name in wanted:
            if name not in known:
                raise unknown("system" if known is SYSTEMS else "model", name, known)
    for system, make in SYSTEMS.items():
        for name in _MODELS:
            if (not systems or system in systems) and (not models or name in models):
                yield from make(Model.named(name))


def _flexgen(model: Model) -> Iterator[Experiment]:
    workload = FlexGen(model)
    yield Experiment("flexgen", model.name, "", workload, _PASSES * workload.batch)


def _vllm(model: Model) -> Iterator[Experiment]:
    if model.name not in _SERVED:
        return
    # Gathered, as our integration swaps; and, for one model, as the paper's vLLM did it.
    for layered in (False, True) if model.name == "opt-30b" else (False,):
        yield from _served(model, layered)


def _served(model: Model, layered: bool) -> Iterator[Experiment]:
    for name, rates in _RATES.items():
        for rate in rates:
            workload = VllmSwap(model, LENGTHS[name], parallel=_ANSWERS, rate=rate, layered=layered)
            variant = f"{name} {rate:g}/s{' layered' * layered}"
            tokens, seeds = (_LAYERED_TOKENS, 1) if layered else (_TOKENS, _SEEDS)
            yield Experiment(
                *("vllm", model.name, variant, workload, tokens, _STEPS_BEFORE, rate, seeds),
            )


def _peft(model: Model) -> Iterator[Experiment]:
    workload = PeftLora(model)
    yield Experiment("peft", model.name, "", workload, _TRAINING_STEPS * workload.batch)


SYSTEMS = {"flexgen": _flexgen, "vllm": _vllm, "peft": _peft}
