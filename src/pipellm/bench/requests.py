"""What a request costs its caller when copies are prefetched into device memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pipellm import _native
from pipellm.bench.driver_table import DriverTable
from pipellm.bench.drivers import shipped_driver
from pipellm.prefetch import TRANSFER, What

_BUDGET = 256 << 20
_EACH = 512
_SIZES = (4 << 10, 64 << 10)


class Requests:
    """The layer over a driver that models nothing, its planner played by hand."""

    def __init__(self) -> None:
        driver = shipped_driver("fast", confidential=True)
        self._layer = _native.PrefetchDriver(
            driver, budget=_BUDGET, transfer_bytes=TRANSFER, threads=1, quiet_ns=0
        )
        self._table = DriverTable(self._layer)
        nbytes = _EACH * max(_SIZES)
        self._host, self._device = self._table.host_alloc(nbytes), self._table.malloc(nbytes)
        self._spare = self._table.malloc(nbytes)
        self._idle = self._table.stream()

    def rows(self) -> dict[str, Callable[[], float]]:
        """Measurements in microseconds a call, by what they measure."""
        rows: dict[str, Callable[[], float]] = {}
        for nbytes in _SIZES:
            size = f"{nbytes >> 10} KiB"
            rows |= {
                f"{size} copied within the device": self._within(nbytes),
                f"{size} copied so, another operation behind": self._within(nbytes, each=True),
                f"prefetch: hits of {size} in a row": self._hit(nbytes),
                f"{size} hit, another operation behind": self._hit(nbytes, each=True),
                f"{size} hit so, a Python thread beside": self._hit_beside(nbytes),
                f"prefetch: misses of {size} in a row": self._miss(nbytes),
            }
        return rows

    def close(self) -> None:
        self._layer.stop()

    def _within(self, nbytes: int, *, each: bool = False) -> Callable[[], float]:
        copies = self._copies(nbytes, self._spare)
        return lambda: self._measure(copies, within=True, each=each)

    def _miss(self, nbytes: int) -> Callable[[], float]:
        return lambda: self._measure(self._copies(nbytes, self._host))

    def _hit(self, nbytes: int, *, each: bool = False) -> Callable[[], float]:
        def measure() -> float:
            self._prefetch(nbytes)
            return self._measure(self._copies(nbytes, self._host), each=each)

        return measure

    def _hit_beside(self, nbytes: int) -> Callable[[], float]:
        def measure() -> float:
            self._prefetch(nbytes)
            stop = threading.Event()

            def compute() -> None:
                while not stop.is_set():
                    sum(range(1000))

            other = threading.Thread(target=compute)
            other.start()
            try:
                return self._measure(self._copies(nbytes, self._host), each=True)
            finally:
                stop.set()
                other.join()

        return measure

    def _copies(self, nbytes: int, source: int) -> list[tuple[int, int, int]]:
        starts = range(0, _EACH * nbytes, nbytes)
        return [(self._device + start, source + start, nbytes) for start in starts]

    def _measure(
        self, copies: list[tuple[int, int, int]], *, within: bool = False, each: bool = False
    ) -> float:
        took = self._layer.measure_requests(copies, within=within, each=each) / 1e3
        self._table.synchronize()
        return took

    def _prefetch(self, nbytes: int) -> None:
        pieces = [(source, nbytes) for _, source, nbytes in self._copies(nbytes, self._host)]
        each = TRANSFER // nbytes
        self._layer.await_news(0, 0)
        for first in range(0, _EACH, each):
            self._layer.transfer(0, pieces[first : first + each])
        left = set(pieces)
        deadline = time.monotonic() + 60
        while left:
            if time.monotonic() > deadline:
                raise TimeoutError("the prefetch buffer does not fill")
            self._table.synchronize(self._idle)  # it grows in calls of the program
            for what, address, length, _, _ in self._layer.await_news(0, 1_000_000):
                if what == What.TRANSFERRED:
                    left.discard((address, length))
