"""Opens the emulated devices of a process under a policy."""

from __future__ import annotations

from pipellm import _native
from pipellm.attach.libcrypto import attach_libcrypto
from pipellm.channel import engines
from pipellm.errors import UserError
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
    own = policy.rules is not None or (policy.prefetches and not _served())
    engine = speed.fastest if own else engines.LIBCRYPTO
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
    if policy.prefetches:
        planning.prefetch(driver, profile, statistics)
    elif policy.rules is not None:
        planning.install(driver, policy.rules, profile, speed, statistics)
    else:
        statistics.declare(_native.COUNTERS)
    statistics.describe(
        engine=engine if policy.sealed else None,
        engines_gbps=speed.gigabytes_per_second,
    )
    return driver


def _served() -> bool:
    """Has this process's libcrypto seal through the provider; False where it cannot."""
    try:
        attach_libcrypto()
    except UserError:
        return False
    return True
