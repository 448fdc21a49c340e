"""Opens the emulated devices of a process under a policy."""

from __future__ import annotations

from pipellm import _native
from pipellm.channel import engines
from pipellm.gpu.emulated.device import open_driver
from pipellm.gpu.emulated.profile import Profile
from pipellm.runtime import planning
from pipellm.runtime.policy import Policy
from pipellm.runtime.statistics import Statistics


def open_under(
    policy: Policy,
    profile: Profile,
    devices: int,
    statistics: Statistics,
    *,
    clock: _native.Clock | None = None,
) -> _native.Driver:
    """A driver for GPUs like the profile's, whose copies go as the policy says and are counted.

    `clock` replaces the emulated machine's clock, for measurements.
    """
    speed = engines.measured()
    engine = engines.LIBCRYPTO if policy.rules is None else speed.fastest
    driver = open_driver(
        profile,
        devices=devices,
        confidential=policy.confidential,
        sealed=policy.sealed,
        pins=policy.pins,
        host_engine=engine,
        device_engine=speed.fastest,
        counters=statistics.counters,
        clock=clock,
    )
    if policy.rules is None:
        statistics.declare(_native.COUNTERS)
    else:
        planning.install(driver, policy.rules, profile, speed, statistics)
    statistics.describe(
        engine=engine if policy.sealed else None,
        engines_gbps=speed.gigabytes_per_second,
    )
    return driver
