"""What a program runs on: the settings, and their way through the environment.

The environment is how settings reach every process of a program: the launcher writes them there,
each Python process below reads them when it imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipellm.errors import UserError, unknown
from pipellm.gpu.emulated.profile import canonical
from pipellm.gpu.emulated.tampering import Tampering
from pipellm.runtime.policy import Policy

OWN_GPU = "own"
"""The GPU that the program finds by itself: PipeLLM puts no device under it."""

GPUS = ("emulated", OWN_GPU)
ATTACHMENTS = ("libcrypto", "cudart")
"""What PipeLLM can get under beside torch."""

MAX_GPUS = 16
"""More than any server holds; a larger number is a slip of the keyboard."""

VARIABLES = (
    *("PIPELLM_GPU", "PIPELLM_PROFILE", "PIPELLM_POLICY", "PIPELLM_ATTACH", "PIPELLM_STATS"),
    *("PIPELLM_TAMPER", "PIPELLM_TRACE"),
)
"""The environment variables that settings travel in."""

LOG_VARIABLE = "PIPELLM_LOG"
"""`debug` tells the story of every copy on standard error."""

DEFAULT_GPU = "emulated"
DEFAULT_PROFILE = "h100"
DEFAULT_POLICY = "auto"


def log_is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether PIPELLM_LOG asks for the story of every copy. Raises UserError for what it may not
    be."""
    level = environment.get(LOG_VARIABLE, "")
    if level.lower() not in ("", "debug"):
        raise unknown(LOG_VARIABLE, level, ("debug",))
    return level != ""


@dataclass(frozen=True, slots=True)
class Settings:
    """Checked settings. Raises UserError for an unknown gpu, profile or policy, and for what does
    not go together."""

    gpu: str = DEFAULT_GPU
    """The kind of device."""
    gpus: int = 1
    """How many of them."""
    profile: str = DEFAULT_PROFILE
    """A profile of the package by name, or the absolute path of a TOML file."""
    policy: str = DEFAULT_POLICY
    attach: str | None = None
    """`libcrypto`: the program's libcrypto seals through PipeLLM's provider; `cudart`: its copies
    do not wait for their streams; or both, with a comma."""
    stats: Path | None = None
    """Absolute path of the JSON file that the statistics go to."""
    tamper: Tampering | None = None
    """An attack on a message, to see it noticed."""
    trace: Path | None = None
    """Absolute path of the file that all that the program asks of the device is recorded in."""

    def __post_init__(self) -> None:
        if self.gpu not in GPUS:
            raise unknown("gpu", self.gpu, GPUS)
        if not 1 <= self.gpus <= MAX_GPUS:
            raise UserError(f"{self.gpus} gpus asked for; 1 to {MAX_GPUS} can be had")
        policy = Policy.named(self.policy)
        if self.gpu == OWN_GPU and self.attach is None:
            raise UserError("gpu own without --attach libcrypto: PipeLLM would do nothing")
        for attachment in self.attachments:
            if attachment not in ATTACHMENTS:
                raise unknown("attachment", attachment, ATTACHMENTS)
        if "cudart" in self.attachments and self.gpu != OWN_GPU:
            raise UserError("--attach cudart is for a real GPU: add --gpu own")
        if self.tamper is not None and self.gpu == OWN_GPU:
            raise UserError("--tamper with gpu own: only an emulated GPU's messages can be changed")
        if self.tamper is not None and not policy.sealed:
            raise UserError(
                f"--tamper with policy {policy.name}: nothing is sealed, so nobody would notice; "
                "take another policy"
            )
        if self.trace is not None and self.gpu == OWN_GPU:
            raise UserError(
                "a trace of gpu own: only what an emulated GPU is asked can be recorded"
            )
        # A program may change its directory before it imports torch.
        object.__setattr__(self, "profile", canonical(self.profile))
        for name in ("stats", "trace"):
            if (file := getattr(self, name)) is not None:
                object.__setattr__(self, name, Path(file).absolute())

    @property
    def attachments(self) -> tuple[str, ...]:
        """`attach`, one by one."""
        return () if self.attach is None else tuple(self.attach.split(","))

    @classmethod
    def parse(
        cls,
        gpu: str = DEFAULT_GPU,
        profile: str = DEFAULT_PROFILE,
        policy: str = DEFAULT_POLICY,
        stats: str | Path | None = None,
        attach: str | None = None,
        tamper: str | None = None,
        trace: str | Path | None = None,
    ) -> Settings:
        """Settings as a user writes them, where `gpu` is `emulated`, `emulated:N` or `own`, and
        `tamper` is `h2d:N` or `d2h:N`."""
        kind, colon, count = gpu.partition(":")
        if colon and not re.fullmatch(r"[0-9]{1,6}", count):
            raise UserError(f"gpu {gpu!r}: expected a number after the colon, as in {kind}:2")
        number = int(count) if colon else 1
        return cls(
            gpu=kind,
            gpus=number,
            profile=profile,
            policy=policy,
            attach=attach,
            stats=Path(stats) if stats else None,
            tamper=None if tamper is None else Tampering.parse(tamper),
            trace=Path(trace) if trace else None,
        )

    def to_environment(self) -> dict[str, str]:
        """The variables from which `from_environment` makes the same settings."""
        environment = {
            "PIPELLM_GPU": f"{self.gpu}:{self.gpus}",
            "PIPELLM_PROFILE": self.profile,
            "PIPELLM_POLICY": self.policy,
        }
        if self.attach is not None:
            environment["PIPELLM_ATTACH"] = self.attach
        if self.stats is not None:
            environment["PIPELLM_STATS"] = str(self.stats)
        if self.tamper is not None:
            environment["PIPELLM_TAMPER"] = str(self.tamper)
        if self.trace is not None:
            environment["PIPELLM_TRACE"] = str(self.trace)
        return environment

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings | None:
        """The settings that a launcher left there, or None if there was none."""
        gpu = environment.get("PIPELLM_GPU")
        if gpu is None:
            return None
        return cls.parse(
            gpu,
            environment.get("PIPELLM_PROFILE", DEFAULT_PROFILE),
            environment.get("PIPELLM_POLICY", DEFAULT_POLICY),
            environment.get("PIPELLM_STATS"),
            environment.get("PIPELLM_ATTACH"),
            environment.get("PIPELLM_TAMPER"),
            environment.get("PIPELLM_TRACE"),
        )

    def agrees_with(self, current: Settings) -> bool:
        """Whether a process that runs under `current` already has what these settings ask for."""
        return (
            (self.gpu, self.gpus, self.profile, self.policy)
            == (current.gpu, current.gpus, current.profile, current.policy)
            and self.attach in (None, current.attach)
            and self.stats in (None, current.stats)
            and self.tamper in (None, current.tamper)
            and self.trace in (None, current.trace)
        )

    def __str__(self) -> str:
        attached = f", attached to {self.attach}" if self.attach else ""
        tampered = f", tampering with {self.tamper}" if self.tamper else ""
        return (
            f"gpu {self.gpu}:{self.gpus}, profile {self.profile}, policy {self.policy}"
            f"{attached}{tampered}"
        )
