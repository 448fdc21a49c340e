"""Policies: how host-device copies are protected. A policy is a value that others read."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from pipellm.errors import unknown


@dataclass(frozen=True, slots=True)
class Policy:
    """One way to run the copies of a program."""

    name: str
    confidential: bool
    """Whether the device is in confidential-computing mode: every copy is sealed."""
    summary: str
    """One line for help texts."""

    @staticmethod
    def named(name: str) -> Policy:
        """The policy called `name`; raises UserError if there is none."""
        try:
            return POLICIES[name]
        except KeyError:
            raise unknown("policy", name, POLICIES) from None


POLICIES = MappingProxyType(
    {
        policy.name: policy
        for policy in (
            Policy("off", False, "no confidential computing: copies in the clear"),
            Policy(
                "serial",
                True,
                "confidential computing as shipped: libcrypto seals on the calling thread",
            ),
        )
    }
)
