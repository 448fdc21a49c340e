"""What `pipellm bench` sets side by side: policies, one of them with the provider, too."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from pipellm.errors import choice
from pipellm.runtime.policy import POLICIES, Policy


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to run a workload."""

    name: str
    """How a user names it, and how its row is called."""
    policy: Policy
    attached: bool = False
    """Whether libcrypto seals through PipeLLM's provider, as under `--attach libcrypto`."""

    @property
    def served(self) -> bool:
        """Whether the provider seals."""
        return self.attached or self.policy.prefetches

    @staticmethod
    def named(name: str) -> Contender:
        """The contender called `name`; raises UserError if there is none."""
        return choice("policy", name, CONTENDERS)


CONTENDERS = MappingProxyType(
    {
        contender.name: contender
        for contender in (
            Contender("off", POLICIES["off"]),
            Contender("ideal", POLICIES["ideal"]),
            Contender("serial", POLICIES["serial"]),
            Contender("serial+libcrypto", POLICIES["serial"], attached=True),
            Contender("pipelined", POLICIES["pipelined"]),
            Contender("prefetch", POLICIES["prefetch"]),
        )
    }
)
