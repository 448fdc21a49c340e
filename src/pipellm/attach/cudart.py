"""Getting under a program that copies through the CUDA runtime: a library that is preloaded.

Experimental: it has not run on a GPU yet (docs/hardware.md). Where confidential computing is off,
it passes every call on as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipellm import _native
from pipellm.errors import UserError

MODULE = Path(_native.__file__).with_name("pipellm_cudart.so")

_VARIABLE = "LD_PRELOAD"


def program_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment under which a program's calls of the CUDA runtime come to PipeLLM first.

    What else is preloaded stays so. Raises UserError if the library is missing.
    """
    if not MODULE.exists():
        raise UserError(f"{MODULE} is missing; install PipeLLM again (`make setup` in a checkout)")
    others = [
        library
        for library in inherited.get(_VARIABLE, "").replace(" ", ":").split(":")
        if library and library != str(MODULE)
    ]
    return {**inherited, _VARIABLE: ":".join([str(MODULE), *others])}


def require() -> None:
    """Raises UserError unless this process was started with the library preloaded."""
    maps = Path("/proc/self/maps").read_text(errors="surrogateescape")
    if str(MODULE) not in maps:
        raise UserError(
            "cudart can be attached only when a program starts: "
            "pipellm run --gpu own --attach cudart -- PROGRAM"
        )
