"""The profile `scaled`: an H100 whose link this host has cores enough for.

The paper's server seals at the rate of its link with many cores; a small host beside an H100's link
would measure nothing but its own lack of cores. So the link is set by the host: with confidential
computing it carries half of what one core seals here, without 1.6 times that (64 / 40, the paper's
link). Everything else, tolls and launches and the GPU itself, is profile `h100`'s.
"""

from __future__ import annotations

from dataclasses import replace

from pipellm import _native
from pipellm.channel import engines
from pipellm.gpu.emulated.profile import Cost, Costs, Link, Profile, load
from pipellm.gpu.emulated.profile_table import Curve

NAME = "scaled"
_BASE = "h100"
_OF_ONE_CORE = 0.5
_OFF_OVER_ON = 64 / 40
_KNOT = 64 << 20
_TRIES, _TRY_SECONDS = 20, 0.05


def link_gbps() -> float:
    """What the confidential link carries on this host, in 10^9 bytes per second, measured.

    By the best of several tries over a second: a link set by a moment at which other programs had
    the core would be too slow to be a test of anything.
    """
    fastest = engines.measured().fastest
    tries = (_native.measure_seal(fastest, _TRY_SECONDS) for _ in range(_TRIES))
    return _OF_ONE_CORE * max(tries) / 1e9


def off_gbps(on_gbps: float) -> float:
    """What the same link carries with confidential computing off."""
    return _OFF_OVER_ON * on_gbps


def scaled(on_gbps: float) -> Profile:
    """The profile with such a confidential link."""
    base = load(_BASE)
    return replace(
        base,
        source=NAME,
        off=_at(base.off, off_gbps(on_gbps)),
        on=_at(base.on, on_gbps),
    )


def _at(link: Link, gbps: float) -> Link:
    return replace(link, h2d=_costs(link.h2d, gbps), d2h=_costs(link.d2h, gbps))


def _costs(costs: Costs, gbps: float) -> Costs:
    return Costs(_cost(costs.pinned, gbps), _cost(costs.pageable, gbps))


def _cost(cost: Cost, gbps: float) -> Cost:
    engine = _line(cost.engine, gbps)
    # Host memory that is staged takes as long as it took, or as long as the link takes now.
    call = cost.call
    if call is not None:
        slope = max(call.microseconds(_KNOT) - call.microseconds(0), _KNOT / gbps / 1e3)
        call = Curve(((0, call.microseconds(0)), (_KNOT, call.microseconds(0) + slope)))
    return replace(cost, engine=engine, call=call)


def _line(curve: Curve, gbps: float) -> Curve:
    fixed = curve.microseconds(0)
    return Curve(((0, fixed), (_KNOT, fixed + _KNOT / gbps / 1e3)))
