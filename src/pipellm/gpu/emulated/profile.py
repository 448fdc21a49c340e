"""Profiles: what one emulated GPU and its link are like, in numbers. TOML in, frozen values out.

    name = "NVIDIA H100 80GB HBM3"   # what a program is told the device is
    memory_gib = 80
    capability = [9, 0]
    multiprocessors = 132
    clock_mhz = 1980

    [compute]                        # optional; without it, computing takes no modelled time
    tflops = 989                     # peak of dense 16-bit matrix multiplication
    tflops_share = 0.6               # how much of it kernels reach
    memory_gb_s = 3350               # device memory's peak, in 10^9 bytes per second
    memory_share = 0.8               # how much of it kernels reach

    [off]                            # confidential computing off; [on] has the same fields
    launch_us = 4.9                  # host time of a kernel launch, and of issuing an async command
    duplex = true                    # an engine for each direction, or one timeline for both

    [off.h2d.pinned]                 # likewise off.h2d.pageable, off.d2h.pinned, ...
    engine_us = [[0, 0.9], [67109000, 1559.6]]
    call_us = [[0, 9.1], [67109000, 1617.3]]

`engine_us` is how long a copy occupies the copy engine, `call_us` how long a blocking call takes on
the calling thread, the engine's time included. Both are knots `[bytes, microseconds]`.

Under `on`, `call_us` may be missing: then a call takes what this host's own sealing takes, after
`toll_us`, the fixed host time of a crossing, whatever its size, the call's own base cost included
and the engine's time not. Where `call_us` is given it is a floor, for a modelled host that seals
slower than this one; it contains the toll, which `toll_us` still states apart.

Everything is checked on loading; what is wrong raises UserError naming the file and the field.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pipellm.errors import UserError, unknown
from pipellm.gpu.emulated.profile_table import Curve, Table

PROFILES = Path(__file__).parent / "profiles"
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Cost:
    """What one copy costs, by its size."""

    engine: Curve
    call: Curve | None
    toll_us: float
    """0 with confidential computing off."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What the copies of one direction cost, by the kind of host memory."""

    pinned: Cost
    pageable: Cost


@dataclass(frozen=True, slots=True)
class Link:
    """The way between host and device in one mode of confidential computing."""

    launch_us: float
    duplex: bool
    h2d: Costs
    d2h: Costs


@dataclass(frozen=True, slots=True)
class Chip:
    """What a device computes and what its memory moves, as far as kernels reach the peaks."""

    flops_per_second: float
    bytes_per_second: float


@dataclass(frozen=True, slots=True)
class Profile:
    """One modelled GPU in its host."""

    source: str
    """The package's name for it, or its file."""
    name: str
    """What a program is told the device is."""
    memory_gib: float
    capability: tuple[int, int]
    multiprocessors: int
    clock_mhz: int
    chip: Chip | None
    """None: computing takes no modelled time."""
    off: Link
    on: Link

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_gib * (1 << 30))

    def link(self, confidential: bool) -> Link:
        return self.on if confidential else self.off


def names() -> tuple[str, ...]:
    """The profiles of the package."""
    return tuple(sorted(path.stem for path in PROFILES.glob("*.toml")))


def canonical(profile: str) -> str:
    """`profile` as any directory understands it: a name of the package's, or an absolute path.

    Raises UserError if there is no such profile.
    """
    if profile.endswith(".toml"):
        if not os.path.isfile(profile):
            raise UserError(f"profile {profile}: no such file")
        return str(Path(profile).absolute())
    if profile not in names():
        raise unknown("profile", profile, [*names(), "FILE.toml"])
    return profile


def load(profile: str) -> Profile:
    """The profile of that name or file; raises UserError if it is missing or has a fault."""
    source = canonical(profile)
    path = Path(source) if source.endswith(".toml") else PROFILES / f"{source}.toml"
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise UserError(f"profile {path}: it has more than {_MOST_BYTES >> 10} KiB")
        document = tomllib.loads(content.decode())
    except OSError as error:
        raise UserError(f"profile {path}: {error.strerror}") from None
    except RecursionError:
        raise UserError(f"profile {path.name}: not TOML of ours: nested too deeply") from None
    except ValueError as error:  # not TOML, not UTF-8, or a number of thousands of digits
        raise UserError(f"profile {path.name}: not TOML: {error}") from None
    with Table(path.name, "", document).checked() as top:
        return Profile(
            source=source,
            name=top.text("name"),
            memory_gib=top.number("memory_gib", positive=True, most=1 << 20),
            capability=top.pair("capability"),
            multiprocessors=top.integer("multiprocessors"),
            clock_mhz=top.integer("clock_mhz"),
            chip=_chip(top) if "compute" in top else None,
            off=_link(top, "off"),
            on=_link(top, "on"),
        )


def _chip(parent: Table) -> Chip:
    with parent.table("compute").checked() as table:
        return Chip(
            flops_per_second=_reached(table, "tflops", "tflops_share") * 1e12,
            bytes_per_second=_reached(table, "memory_gb_s", "memory_share") * 1e9,
        )


def _reached(table: Table, peak: str, share: str) -> float:
    return table.number(peak, positive=True) * table.share(share)


def _link(parent: Table, mode: str) -> Link:
    with parent.table(mode).checked() as table:
        return Link(
            launch_us=table.number("launch_us"),
            duplex=table.boolean("duplex"),
            h2d=_costs(table, "h2d", mode),
            d2h=_costs(table, "d2h", mode),
        )


def _costs(parent: Table, name: str, mode: str) -> Costs:
    with parent.table(name).checked() as table:
        return Costs(_cost(table, "pinned", mode), _cost(table, "pageable", mode))


def _cost(parent: Table, name: str, mode: str) -> Cost:
    with parent.table(name).checked() as table:
        engine = table.curve("engine_us")
        if mode == "off":
            return Cost(engine, table.curve("call_us"), 0.0)
        call = table.curve("call_us") if "call_us" in table else None
        return Cost(engine, call, table.number("toll_us"))
