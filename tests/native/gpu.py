"""A driver that costs no modelled time, or as much as a test says, on a clock of the test's own."""

from __future__ import annotations

from array import array

from pipellm import _native
from pipellm.bench.driver_table import DriverTable


def path(
    engine: list[tuple[float, float]] | None = None,
    call: list[tuple[float, float]] | None = None,
    toll: int = 0,
) -> _native.PathCost:
    return _native.PathCost(
        engine=_native.Curve(engine or []),
        call=None if call is None else _native.Curve(call),
        toll=toll,
    )


def cost_model(
    copies: _native.PathCost | None = None,
    *,
    within: list[tuple[float, float]] | None = None,
    launch: int = 0,
    duplex: bool = True,
) -> _native.CostModel:
    each = copies or path()
    return _native.CostModel(
        h2d_pageable=each,
        h2d_pinned=each,
        d2h_pageable=each,
        d2h_pinned=each,
        device_copy=_native.Curve(within or []),
        launch=launch,
        duplex=duplex,
    )


class Gpu(DriverTable):
    """A driver with its counters and its clock at hand."""

    def __init__(
        self,
        *,
        confidential: bool = True,
        pins: bool | None = None,
        devices: int = 1,
        memory_bytes: int = 1 << 30,
        cost: _native.CostModel | None = None,
    ) -> None:
        self.clock = _native.ManualClock()
        self._counters = array("q", [0] * len(_native.COUNTERS))
        self.driver = _native.Driver(
            devices=devices,
            memory_bytes=memory_bytes,
            confidential=confidential,
            pins=not confidential if pins is None else pins,
            host_engine="openssl",
            device_engine=_native.engines()[-1],
            cost=cost or cost_model(duplex=not confidential),
            counters=memoryview(self._counters),
            clock=self.clock,
        )
        self.lay_over()
        super().__init__(self.driver)

    def lay_over(self) -> None:
        """Puts layers over the driver, before anybody has its table."""

    @property
    def counted(self) -> dict[str, int]:
        return dict(zip(_native.COUNTERS, self._counters, strict=True))
