"""The native core (native/python). Every call that may take long lets go of the GIL."""

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

def measure_fingerprint(seconds: float) -> float:
    """Bytes per second that one thread hashes, by which a plaintext is known again."""

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
    """One direction of copies from or to one kind of host memory (native/emulator/cost_model.h)."""

    def __init__(self, engine: Curve, call: Curve | None, toll: int) -> None: ...

class CostModel:
    def __init__(
        self,
        *,
        h2d_pageable: PathCost,
        h2d_pinned: PathCost,
        d2h_pageable: PathCost,
        d2h_pinned: PathCost,
        device_copy: Curve,
        launch: int,
        duplex: bool,
    ) -> None: ...

class Clock:
    """The emulated machine's clock, in nanoseconds (native/base/clock.h)."""

    def now(self) -> int: ...
    def wait_until(self, deadline: int) -> None: ...
    def paused(self) -> int:
        """How long it has stood still so far, while the emulator did a GPU's work."""
    def spun(self) -> int:
        """How long threads have used a CPU so far for nothing but to wait until a time."""
    @property
    def slowdown(self) -> float:
        """How many times slower than the wall's it goes."""

class RealClock(Clock):
    """The wall's clock, less what it stood still; in slow motion if `slowdown` is above 1."""

    def __init__(self, slowdown: float = 1.0) -> None: ...

class ManualClock(Clock):
    """Time passes only when somebody waits for it, or says so.

    Between any two questions about what a thread has worked, it has worked `work` nanoseconds.
    """

    def __init__(self, slowdown: float = 1.0, work: int = 0) -> None: ...
    def advance(self, nanoseconds: int) -> None: ...

class Watch:
    """Memory that is watched for as long as this lives."""

class WriteTracker:
    """Notices writes to memory (native/memory/write_tracker.h)."""

    def __init__(self) -> None: ...
    @property
    def works(self) -> bool: ...
    def watch(self, address: int, nbytes: int) -> Watch | None: ...
    def unchanged(self, watch: Watch) -> bool: ...
    def expect_writes(self, address: int, nbytes: int) -> None: ...

def memory_is_plentiful(root: str = "") -> bool:
    """Whether there is memory to spare; for its tests (native/memory/spare_memory.h)."""

class ContextLost(Exception):
    """A message failed authentication; the device is of no use to this process any more."""

class Context:
    """One device, and what lies over it."""

    def speculate(
        self, id: int, address: int, nbytes: int, first: int, last: int, number: int
    ) -> None:
        """Has the pool watch and seal chunks [first, last) of it, chunk i under `number` + i."""
    def relinquish(self, id: int) -> None:
        """Forgets a speculation and has the pool wipe what was sealed of it."""
    def news(self) -> list[tuple[int, int, int]]:
        """For tests: (speculation, chunks sealed, trouble) where that has changed since."""
    def expect(self, groups: Sequence[Sequence[tuple[int, int]]]) -> None:
        """What will be copied to the device next: (address, bytes), group by group."""
    def close(self) -> None:
        """Nothing is sealed ahead any more, and what was asked for is sent."""
    def wait_idle(self) -> None:
        """Until the pool has done all it was given."""
    def go_blind(self, *, bytes: bool = False) -> None:
        """For tests: from now on no write is noticed, and if `bytes` no byte that differs."""
    @property
    def cpu_times(self) -> tuple[int, int]:
        """Nanoseconds on a CPU: the threads that seal and open, and what plays the device."""
    @property
    def arena_in_use(self) -> int:
        """Messages sealed ahead, or being sealed."""

class Interpreter:
    """A Python interpreter of our own, for the planner (native/interpreter/interpreter.h)."""

    @staticmethod
    def start(path: Sequence[str], module: str) -> Interpreter:
        """Makes it, with a `sys.path` of its own. Once; later calls return the same.

        Raises RuntimeError if it cannot be made.
        """
    def end(self) -> None:
        """Before Python ends. What is asked later is answered without it."""

class Driver:
    """All emulated GPUs of one process, and the layers over them (native/python/driver_stack.h)."""

    def __init__(
        self,
        *,
        devices: int,
        memory_bytes: int,
        confidential: bool,
        pins: bool,
        host_engine: str,
        device_engine: str,
        cost: CostModel,
        counters: Buffer,
        clock: Clock | None = None,
    ) -> None: ...
    @property
    def api_address(self) -> int:
        """Address of the C table (native/link/driver_api.h)."""
    @property
    def devices(self) -> int: ...
    @property
    def in_bad_fork(self) -> bool:
        """Whether this is a child of a process that had already used a device."""
    @property
    def clock(self) -> Clock: ...
    def context(self, device: int) -> Context: ...
    def declare_immutable(self, address: int, nbytes: int) -> None:
        """Host memory that needs no watching: its owner promises not to change it."""
    def withdraw_immutable(self, address: int, nbytes: int) -> bool:
        """False if nothing of this memory was declared."""
    def never_ahead(self, address: int, nbytes: int) -> None:
        """Host memory that nobody reads before a copy of it is asked for."""
    def allow_ahead(self, address: int, nbytes: int) -> bool:
        """False if it was not forbidden for any of this memory."""
    def plan(
        self,
        *,
        interpreter: Interpreter,
        ahead: bool,
        budget: int,
        patience_ns: int,
        nop_ns: int,
        seal_ns: int,
        counters: Buffer,
        threads: int,
        arena_messages: int,
        tells: bool,
    ) -> None:
        """Has the planner decide about the copies of each device. Before anybody has the table."""
    def prefetch(
        self,
        *,
        interpreter: Interpreter,
        budget: int,
        transfer_bytes: int,
        threads: int,
        quiet_ns: int,
        nap_ns: int,
        counters: Buffer,
        tells: bool,
    ) -> None:
        """Has what each device will be asked for sent to at most `budget` bytes of its memory.

        `threads` read the host's memory together. For `quiet_ns` of this host's clock after a copy
        that a thread of the program's did itself, nothing foreseen is begun. The planner hears what
        happened every `nap_ns` at most, and less often while it has nothing to order.
        Before anybody has the table. `counters` are int64, runtime.prefetching.PREFETCHING first.
        """
    def context_if_used(self, device: int) -> Context | None: ...
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
    def tamper(self, direction: int, number: int) -> None:
        """Flips a bit of one message of device 0 in the open. Before its first use."""
    def measure_copies(
        self, *, direction: int, pinned: bool, nbytes: int, repeats: int
    ) -> list[tuple[int, int]]:
        """Times blocking copies as a C program's cudaMemcpy: (emulated ns, wall ns) of each."""
    def record(self, directory: str) -> None:
        """Keeps all that is asked of the devices in a file there, `*.events` (native/recorder).

        Before anybody has the table. Raises RuntimeError where the file cannot be made.
        """
    def skip_to(self, device: int, direction: int, last: int) -> None:
        """For tests: the host counts on as if `last` messages had been sent."""

def fill_pattern(address: int, nbytes: int, tag: int) -> None:
    """Makes memory hold bytes that follow from `tag`; another tag differs in every word."""

def holds_pattern(address: int, nbytes: int, tag: int) -> bool:
    """Whether every byte of memory is as `fill_pattern` left it."""

class PrefetchDriver:
    """Prefetching into device memory, over another driver (native/prefetch/prefetch_driver.h)."""

    def __init__(
        self, below: Driver, *, budget: int, transfer_bytes: int, threads: int, quiet_ns: int
    ) -> None: ...
    @property
    def api_address(self) -> int: ...
    def measure_requests(
        self, copies: Sequence[tuple[int, int, int]], *, within: bool, each: bool
    ) -> float:
        """Nanoseconds of the caller's for each of these copies to device 0: to, from, bytes.

        `within`: as copies within the device that the layer only hands on. `each`: behind each of
        them something else is put on the stream, else behind the last one.
        """
    def transfer(self, device: int, pieces: Sequence[tuple[int, int]]) -> None:
        """Orders one transfer of these pieces, each an address and bytes."""
    def evict(self, device: int, pieces: Sequence[tuple[int, int]]) -> None: ...
    def await_news(self, device: int, nanoseconds: int) -> list[tuple[int, int, int, int, int]]:
        """What happened since the last time (`pipellm.prefetch.News`)."""
    def held(self, device: int) -> int:
        """Bytes of the device's memory that are the prefetch buffer."""
    def never_ahead(self, address: int, nbytes: int) -> None: ...
    def allow_ahead(self, address: int, nbytes: int) -> bool: ...
    def stop(self) -> None:
        """Finishes what is under way; from then on copies go as they would without this layer."""

class Replay:
    """Does lists of operations on device 0 as a C program would (native/bench/replay.h)."""

    def __init__(self, driver: Driver, *, charged: bool) -> None:
        """From now on the device's time stands still, except in `run`.

        `charged`: on a clock with a slowdown, the program's thread is charged for its own work.
        """
    def host_memory(self, nbytes: int, pinned: bool) -> int: ...
    def device_memory(self, nbytes: int) -> int: ...
    def run(self, operations: Buffer) -> list[int]:
        """Operations of seven int64 each; the emulated nanoseconds at each mark."""
