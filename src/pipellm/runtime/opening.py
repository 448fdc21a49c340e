"""Opens the emulated devices of a process under a policy."""

from __future__ import annotations

import os
import sys

from pipellm import _native
from pipellm.attach.libcrypto import attach_libcrypto
from pipellm.channel import engines
from pipellm.errors import UserError
from pipellm.gpu.emulated.device import open_driver
from pipellm.gpu.emulated.profile import Profile
from pipellm.runtime import planning
from pipellm.runtime.choosing import choose
from pipellm.runtime.policy import AUTO, Policy
from pipellm.runtime.statistics import Statistics
from pipellm.settings import log_is_wanted


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
    served = policy.prefetches and _served()
    budget = planning.buffer_budget(profile) if policy.prefetches else 0
    if policy is AUTO:
        policy = _chosen(budget, statistics)
    speed = engines.measured()
    own = policy.rules is not None or (policy.prefetches and not served)
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
        planning.prefetch(driver, budget, statistics)
    elif policy.rules is not None:
        planning.install(driver, policy.rules, profile, speed, statistics)
    else:
        statistics.declare(_native.COUNTERS)
    statistics.describe(
        engine=engine if policy.sealed else None,
        engines_gbps=speed.gigabytes_per_second,
    )
    return driver


def _chosen(budget: int, statistics: Statistics) -> Policy:
    """What AUTO comes to here; said in the statistics and, where it is wanted, in the log."""
    trouble = None
    try:
        planning.interpreter()
    except RuntimeError as error:
        trouble = str(error)
    choice = choose(budget, trouble)
    statistics.describe(chosen=choice.policy.name, because=choice.why)
    if log_is_wanted(os.environ):
        print(f"pipellm: auto: {choice.policy.name}, because {choice.why}", file=sys.stderr)
    return choice.policy


def _served() -> bool:
    """Has this process's libcrypto seal through the provider; False where it cannot."""
    try:
        attach_libcrypto()
    except UserError:
        return False
    return True
