"""The cases that are simulated: the policies, and prefetching."""

from __future__ import annotations

from types import MappingProxyType

from pipellm.errors import choice
from pipellm.runtime.policy import POLICIES, Policy

PREFETCH = Policy(
    "prefetch",
    True,
    True,
    None,
    "swaps are predicted and sent to spare device memory before they are asked for",
)

CASES = MappingProxyType({**POLICIES, PREFETCH.name: PREFETCH})


def named(name: str) -> Policy:
    """The case called `name`; raises UserError if there is none."""
    return choice("case", name, CASES)
