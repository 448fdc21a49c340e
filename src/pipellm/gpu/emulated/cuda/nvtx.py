"""NVTX annotations go nowhere: no profiler listens to an emulated GPU."""

from __future__ import annotations


class Nvtx:
    """Stands for the module `torch._C._nvtx`."""

    def __init__(self) -> None:
        self._depth = 0

    def rangePushA(self, message: str) -> int:  # noqa: N802
        """Returns the depth of the range that begins, as NVTX does."""
        self._depth += 1
        return self._depth - 1

    def rangePop(self) -> int:  # noqa: N802
        self._depth = max(0, self._depth - 1)
        return self._depth

    def rangeStartA(self, message: str) -> int:  # noqa: N802
        return 0

    def rangeEnd(self, range_id: int) -> None:  # noqa: N802
        pass

    def markA(self, message: str) -> None:  # noqa: N802
        pass

    def deviceRangeStart(self, message: str, stream: int) -> object:  # noqa: N802
        return None

    def deviceRangeEnd(self, handle: object, stream: int) -> None:  # noqa: N802
        pass
