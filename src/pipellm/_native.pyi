"""The native core (native/module.cpp). Every call that may take long lets go of the GIL."""

from collections.abc import Callable, Sequence

from typing_extensions import Buffer

COUNTERS: tuple[str, ...]
"""Names of the int64 counters that a driver increments, in order."""

SWAP_BYTES: int
"""Transfers above this size count as swaps."""

def engines() -> list[str]:
    """The AES-256-GCM engines of this build: `openssl`, and `ipsec-mb` where it was found."""

def measure_seal(engine: str, seconds: float, threads: int = 1) -> float:
    """Bytes per second that `threads` threads seal together, over messages of 1 MiB."""

def measure_memcpy(seconds: float) -> float:
    """Bytes per second that one thread copies, over blocks that do not fit the cache."""

class Aead:
    """One AES-256-GCM key in one engine; for tests of the engines."""

    @staticmethod
    def create(engine: str, key: bytes) -> Aead:
        """Raises ValueError for an unknown engine or a key that is not 32 bytes long."""
    def seal(self, iv: bytes, plaintext: bytes) -> tuple[bytes, bytes]:
        """Ciphertext and tag."""
    def open(self, iv: bytes, ciphertext: bytes, tag: bytes) -> bytes | None:
        """The plaintext, or None if it is not what was sealed."""

class CounterExhausted(OverflowError):
    """A message counter has no next value: going on would use an IV twice."""

class Endpoint:
    """One side of one direction of a channel; for its tests."""

    @property
    def last(self) -> int: ...
    def next(self) -> int: ...
    def skip_to(self, last: int) -> None: ...
    def iv(self, number: int) -> bytes: ...
    def number_of(self, iv: bytes) -> int: ...
    def seal(self, number: int, plaintext: bytes) -> tuple[bytes, bytes]: ...
    def open(self, number: int, ciphertext: bytes, tag: bytes) -> bytes | None: ...

class SecureChannel:
    """One party's side of a channel; for its tests."""

    def __init__(self, engine: str, master: bytes) -> None: ...
    @property
    def h2d(self) -> Endpoint: ...
    @property
    def d2h(self) -> Endpoint: ...

class Curve:
    """Nanoseconds against bytes: straight lines between knots, the last one's slope beyond."""

    def __init__(self, knots: Sequence[tuple[float, float]]) -> None: ...
    def __call__(self, nbytes: int) -> int: ...

class PathCost:
    """One direction of copies from or to one kind of host memory (native/cost_model.h)."""

    def __init__(self, engine: Curve, call: Curve | None, toll: int) -> None: ...

class CostModel:
    def __init__(
        self,
        *,
        h2d_pageable: PathCost,
        h2d_pinned: PathCost,
        d2h_pageable: PathCost,
        d2h_pinned: PathCost,
        launch: int,
        duplex: bool,
    ) -> None: ...

class Clock:
    """The emulated machine's clock, in nanoseconds (native/clock.h)."""

    def now(self) -> int: ...
    def wait_until(self, deadline: int) -> None: ...
    def paused(self) -> int:
        """How long it has stood still so far, while the emulator did a GPU's work."""

class RealClock(Clock): ...

class ManualClock(Clock):
    """Time passes only when somebody waits for it, or says so."""

    def __init__(self) -> None: ...
    def advance(self, nanoseconds: int) -> None: ...

class Driver:
    """All emulated GPUs of one process (native/driver.h)."""

    def __init__(
        self,
        *,
        devices: int,
        memory_bytes: int,
        confidential: bool,
        device_engine: str,
        cost: CostModel,
        counters: Buffer,
        clock: Clock | None = None,
    ) -> None: ...
    @property
    def api_address(self) -> int:
        """Address of the C table (native/driver_api.h)."""
    @property
    def devices(self) -> int: ...
    @property
    def in_bad_fork(self) -> bool:
        """Whether this is a child of a process that had already used a device."""
    @property
    def clock(self) -> Clock: ...
    def stop_threads(self) -> None:
        """Before the process ends: from now on only threads that wait do the engines' work."""
    def outlive_python(self) -> None:
        """Never destroys the driver: tensors refer to its memory until the very end."""
    def busy(self, device: int, stream: int, seconds: float) -> None:
        """Queues modelled work on a stream."""
    def bounce_file_descriptor(self, device: int, direction: int) -> int:
        """The shared memory that everybody may read; -1 with confidential computing off."""
    def set_tap(self, device: int, tap: Callable[[int, int, memoryview], object] | None) -> None:
        """Calls `tap(direction, number, message)` for each message while it lies in the open.

        `message` is writable: ciphertext, then tag and IV, as an attacker on the bus has it.
        """
    def measure_copies(
        self, *, direction: int, pinned: bool, nbytes: int, repeats: int
    ) -> list[tuple[int, int]]:
        """Times blocking copies as a C program's cudaMemcpy: (emulated ns, wall ns) of each."""
    def skip_to(self, device: int, direction: int, last: int) -> None:
        """For tests: the host counts on as if `last` messages had been sent."""
