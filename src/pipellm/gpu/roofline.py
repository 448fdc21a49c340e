"""How long a GPU computes, by the roofline: as long as its arithmetic or its memory takes.

The model of Williams, Waterman and Patterson (CACM 52(4), 2009) with what a profile's `[compute]`
says: peak rates from the data sheet, and the share of them that real kernels reach.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipellm.gpu.emulated.profile import Chip, Profile
from pipellm.workloads.events import Compute


@dataclass(frozen=True, slots=True)
class Roofline:
    """What one device computes, in time. Without a chip nothing takes any."""

    chip: Chip | None
    launch_s: float
    """Host time of one kernel launch."""

    @staticmethod
    def of(profile: Profile, *, confidential: bool) -> Roofline:
        """The profile's device. Confidential computing slows launches, not kernels (facts)."""
        return Roofline(profile.chip, profile.link(confidential).launch_us * 1e-6)

    def device_seconds(self, work: Compute) -> float:
        """How long the device is busy with it."""
        if self.chip is None:
            return 0.0
        return max(
            work.flops / self.chip.flops_per_second, work.nbytes / self.chip.bytes_per_second
        )

    def host_seconds(self, work: Compute) -> float:
        """How long the program's thread is busy launching it."""
        return work.kernels * self.launch_s
