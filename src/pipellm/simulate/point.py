"""One point of an evaluation: what is simulated, and the row that comes of it."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any

from pipellm.errors import UserError
from pipellm.gpu.emulated.profile import load
from pipellm.input import Figure
from pipellm.runtime.policy import Policy
from pipellm.simulate.host import Host
from pipellm.simulate.machine import Machine
from pipellm.simulate.paper import Experiment
from pipellm.workloads.events import Workload
from pipellm.workloads.vllm import VllmSwap

LABEL = "simulated"


@dataclass(frozen=True, slots=True)
class Point:
    """A program on a machine, in one case. A value that can be sent to another process."""

    experiment: Experiment
    case: str
    """Its name (`runtime.policy`)."""
    profile: str
    host: Host
    setting: str = ""
    """Where a sweep is: `cores=8`."""

    def simulate(self) -> Row:
        """The row, without what takes others to compare with."""
        experiment = self.experiment
        profile, policy = load(self.profile), Policy.named(self.case)
        latencies: list[float] = []
        begun = time.process_time()
        runs = [
            Machine(profile, self.host, policy).run(
                _timed(workload, latencies), experiment.units, warm=experiment.warm
            )
            for workload in experiment.workloads
        ]
        seconds = sum(run.seconds for run in runs)
        if seconds <= 0:
            raise UserError(f"{experiment.system} takes no time at all under {self.profile}")
        hits = sum(run.tally.hits for run in runs if run.tally)
        swaps = hits + sum(run.tally.misses for run in runs if run.tally)
        return Row(
            system=experiment.system,
            model=experiment.model,
            variant=experiment.variant,
            case=self.case,
            profile=self.profile,
            setting=self.setting,
            rate=experiment.rate,
            throughput=sum(run.units for run in runs) / seconds,
            unit=f"{experiment.workload.unit}/s",
            link_gb_s=sum(run.nbytes for run in runs) / seconds / 1e9,
            latency=fmean(latencies) if latencies else None,
            hit_rate=hits / swaps if swaps else None,
            cpu_s=time.process_time() - begun,
        )


@dataclass(frozen=True, slots=True)
class Row:
    """What one point came to."""

    system: str
    model: str
    variant: str
    case: str
    profile: str
    setting: str
    rate: Figure | None
    throughput: Figure
    unit: str
    link_gb_s: Figure
    """Bytes copied, both ways, over the time."""
    latency: Figure | None
    """Of a server: seconds per token, the mean over requests of their time over their tokens."""
    hit_rate: Figure | None
    """Of swap-ins: those that were sent as sealed ahead, or were in device memory as a whole."""
    drop_vs_off: Figure = 0.0
    """The share of `off`'s throughput that is lost,"""
    link_drop: Figure = 0.0
    """and that share with sealing free: the link's and its tolls'. The rest is the software's."""
    label: str = LABEL
    cpu_s: float = field(default=0.0, compare=False)
    """What it took to simulate: seconds of a core of this machine, measured."""

    @property
    def software_drop(self) -> float:
        """What is lost beyond what the link takes."""
        return self.drop_vs_off - self.link_drop

    def compared(self, off: Row, ideal: Row) -> Row:
        """With what is lost against these."""
        return replace(
            self,
            drop_vs_off=1 - self.throughput / off.throughput,
            link_drop=1 - ideal.throughput / off.throughput,
        )

    @property
    def program(self) -> str:
        """What was run, in words: the model, the variant, where a sweep is."""
        return " ".join(filter(None, (self.model, self.variant, self.setting)))

    def as_json(self) -> dict[str, Any]:
        values = asdict(self) | {"software_drop": self.software_drop}
        del values["cpu_s"]  # another one each time
        return values


def _timed(workload: Workload, latencies: list[float]) -> Workload:
    """The same; of a server, seconds per token of each request go to `latencies`."""
    if not isinstance(workload, VllmSwap):
        return workload
    return replace(workload, answered=lambda s, tokens: latencies.append(s / tokens))
