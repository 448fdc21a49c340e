"""A driver of its own for a measurement beneath torch."""

from __future__ import annotations

from array import array

from pipellm import _native
from pipellm.channel import engines
from pipellm.gpu.emulated.device import open_driver
from pipellm.gpu.emulated.profile import load


def shipped_driver(profile: str, *, confidential: bool) -> _native.Driver:
    """One GPU like the profile's under policy `serial` (confidential) or `off`; counts unseen."""
    return open_driver(
        load(profile),
        devices=1,
        confidential=confidential,
        sealed=confidential,
        pins=not confidential,
        host_engine=engines.LIBCRYPTO,
        device_engine=engines.measured().fastest,
        counters=memoryview(array("q", [0] * len(_native.COUNTERS))),
    )
