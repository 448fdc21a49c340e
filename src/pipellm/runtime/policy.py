"""Policies: how host-device copies are protected. A policy is a value that others read."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from pipellm.errors import choice
from pipellm.plan.rules import PAPER, Rules


@dataclass(frozen=True, slots=True)
class Policy:
    """One way to run the copies of a program."""

    name: str
    confidential: bool
    """Whether the device is in confidential-computing mode, with the link and the tolls of that."""
    sealed: bool
    """Whether what crosses is sealed."""
    rules: Rules | None
    """What the planner plays by. None: nothing is planned; the driver copies in the order asked,
    in its own time, as one without PipeLLM does."""
    summary: str
    """One line for help texts."""
    prefetches: bool = False
    """Whether copies are foreseen and sent to spare device memory, over that driver, which is
    served by the OpenSSL provider."""

    @property
    def foresees(self) -> bool:
        """Whether copies are predicted."""
        return self.rules is not None or self.prefetches

    @property
    def pins(self) -> bool:
        """Whether pinned memory is what it says it is (facts: not under NVIDIA's own driver)."""
        return not self.sealed or self.rules is not None

    @staticmethod
    def named(name: str) -> Policy:
        """The policy called `name`, which may be AUTO; raises UserError if there is none."""
        return choice("policy", name, CHOICES)


POLICIES = MappingProxyType(
    {
        policy.name: policy
        for policy in (
            Policy("off", False, False, None, "no confidential computing: copies in the clear"),
            Policy(
                "ideal",
                True,
                False,
                None,
                "the limit of the hardware, for measurements: the link and the tolls of "
                "confidential computing, but nothing is sealed",
            ),
            Policy(
                "serial",
                True,
                True,
                None,
                "confidential computing as shipped: libcrypto seals on the calling thread",
            ),
            Policy(
                "pipelined",
                True,
                True,
                PAPER,
                "the paper's pipeline: swaps are predicted and sealed ahead on other cores",
            ),
            Policy(
                "prefetch",
                True,
                True,
                None,
                "swaps are predicted and sent to spare device memory before they are asked for",
                prefetches=True,
            ),
        )
    }
)

AUTO = Policy(
    "auto",
    True,
    True,
    None,
    "prefetch where the device has room for it, else pipelined, else serial with the provider",
    prefetches=True,
)
"""Becomes one of POLICIES when the device is opened (`pipellm.runtime.choosing`)."""

CHOICES = MappingProxyType({**POLICIES, AUTO.name: AUTO})
"""What a program may be run under."""
