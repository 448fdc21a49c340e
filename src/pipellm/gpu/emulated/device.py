"""The native driver of an emulated GPU, made from a profile."""

from __future__ import annotations

from pathlib import Path

from pipellm import _native
from pipellm.errors import UserError
from pipellm.gpu.emulated.profile import Chip, Cost, Profile
from pipellm.gpu.emulated.profile_table import Curve


def open_driver(
    profile: Profile,
    *,
    devices: int,
    confidential: bool,
    sealed: bool,
    pins: bool,
    host_engine: str,
    device_engine: str,
    counters: memoryview,
    clock: _native.Clock | None = None,
) -> _native.Driver:
    """A driver for `devices` GPUs like the profile's.

    `confidential`: whether the link is that of confidential computing; `sealed`: whether what
    crosses it is sealed. `pins`: whether pinned memory is what it says it is; not so under
    confidential computing as shipped (facts: cudaHostRegister is refused, is_pinned() is false).
    `host_engine` seals and opens for the program; `device_engine` plays the GPU's own cipher, which
    is hardware in reality.
    `counters` is a writable buffer of `len(_native.COUNTERS)` 64-bit integers that the driver
    increments from any thread. `clock` replaces the emulated machine's clock, for tests.
    """
    link = profile.link(confidential)
    return _native.Driver(
        devices=devices,
        memory_bytes=profile.memory_bytes,
        confidential=sealed,
        pins=pins,
        host_engine=host_engine,
        device_engine=device_engine,
        cost=_native.CostModel(
            h2d_pageable=_path(link.h2d.pageable),
            h2d_pinned=_path(link.h2d.pinned),
            d2h_pageable=_path(link.d2h.pageable),
            d2h_pinned=_path(link.d2h.pinned),
            device_copy=_within(profile.chip),
            launch=_nanoseconds(link.launch_us),
            duplex=link.duplex,
        ),
        counters=counters,
        clock=clock,
    )


def record(driver: _native.Driver, directory: Path) -> None:
    """Keeps all that is asked of `driver` in a file in `directory` (pipellm.trace.tape reads it).

    Before anybody has the driver's table. Raises UserError where there is no room for the file.
    """
    try:
        driver.record(str(directory))
    except RuntimeError as error:
        raise UserError(
            f"cannot record in {directory}: {error}; free some space there, or set TMPDIR to "
            "another directory"
        ) from None


def _within(chip: Chip | None) -> _native.Curve:
    """A copy within device memory, which reads and writes each byte."""
    if chip is None:
        return _native.Curve([])
    return _native.Curve([(0, 0), (chip.bytes_per_second, 2e9)])


def _path(cost: Cost) -> _native.PathCost:
    return _native.PathCost(
        engine=_curve(cost.engine),
        call=None if cost.call is None else _curve(cost.call),
        toll=_nanoseconds(cost.toll_us),
    )


def _curve(curve: Curve) -> _native.Curve:
    return _native.Curve([(nbytes, us * 1e3) for nbytes, us in curve.knots])


def _nanoseconds(microseconds: float) -> int:
    return round(microseconds * 1e3)
