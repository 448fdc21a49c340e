"""Where FlexGen keeps what, and so what has to cross the link for every token."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

POLICIES = ("off", "serial", "pipelined")
"""What every mode is run under; the first is what the others are compared with."""


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to run FlexGen: its own options, nothing else."""

    name: str
    summary: str
    percent: tuple[int, int, int, int, int, int]
    """FlexGen's --percent: of weights, KV cache and activations, the shares on the device and in
    host memory. What is missing to 100 is on disk."""
    options: tuple[str, ...] = ()
    exact: bool = True
    """Whether the weights stay what they are, so that the tokens are those of a CPU as well."""

    needs_pinned: bool = False
    """Whether FlexGen fails where pinned memory does not call itself pinned, as under confidential
    computing as shipped: it then hands an activation to a thread of its own and deletes it, and if
    the thread comes second, waits for ever."""

    @property
    def policies(self) -> tuple[str, ...]:
        """The policies that FlexGen can run under in this mode."""
        return tuple(name for name in POLICIES if not (self.needs_pinned and name == "serial"))

    @property
    def arguments(self) -> list[str]:
        """What to add to FlexGen's command line."""
        return ["--percent", *map(str, self.percent), *self.options]


WEIGHTS = Mode("weights", "weights in pinned host memory", (0, 100, 100, 0, 100, 0))

MODES = MappingProxyType(
    {
        mode.name: mode
        for mode in (
            WEIGHTS,
            Mode(
                "compressed",
                "weights in pinned host memory, in 4 bits",
                WEIGHTS.percent,
                ("--compress-weight",),
                exact=False,
            ),
            Mode("cache", "weights and KV cache in host memory", (0, 100, 0, 100, 100, 0)),
            Mode(
                "everything",
                "weights, KV cache and activations in host memory",
                (0, 100, 0, 100, 0, 100),
                needs_pinned=True,
            ),
            Mode(
                "unpinned",
                "weights in pageable host memory",
                WEIGHTS.percent,
                ("--pin-weight", "0"),
            ),
            Mode("disk", "weights on disk", (0, 0, 100, 0, 100, 0)),
        )
    }
)
