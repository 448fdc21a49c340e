"""Random programs over the prefetching layer see, byte for byte, what they would see without it.

Whatever a planner orders, and whatever happens: memory that changes, is freed and comes again, runs
short; several streams and threads.
"""

from __future__ import annotations

import ctypes
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipellm.bench.driver_table import D2H, H2D, OUT_OF_MEMORY, DriverError

from .gpu import Gpu
from .prefetching import BUDGET, MIB, PrefetchingGpu

STREAMS = 3
BUFFERS = 3
SIZE = 200_000  # longer than what is captured, checked or hashed at once
DEVICE = 64 * MIB

stream_ids = st.integers(0, STREAMS - 1)
buffer_ids = st.integers(0, BUFFERS - 1)
kinds = st.sampled_from(["pinned", "registered", "pageable"])
ranges = st.one_of(
    st.just((0, SIZE)),
    st.tuples(st.integers(0, 1000), st.integers(1, 3000)),
    st.tuples(st.integers(0, SIZE - 1), st.integers(1, SIZE)).map(
        lambda each: (each[0], min(each[1], SIZE - each[0]))
    ),
)

operations = st.one_of(
    st.tuples(
        st.just("copy"), st.sampled_from([H2D, D2H]), kinds, buffer_ids, buffer_ids, ranges,
        stream_ids, st.booleans(),
    ),
    st.tuples(st.just("prefetch"), kinds, buffer_ids, ranges, st.booleans()),
    st.tuples(st.just("evict"), kinds, buffer_ids, ranges),
    st.tuples(st.just("kernel"), buffer_ids, stream_ids),
    st.tuples(st.just("copy within"), buffer_ids, buffer_ids, ranges, stream_ids),
    st.tuples(st.just("host write"), kinds, buffer_ids, ranges, st.integers(0, 255)),
    st.tuples(st.just("hold"), stream_ids),
    st.tuples(st.just("let go")),
    st.tuples(st.just("synchronize"), st.one_of(st.none(), stream_ids)),
    st.tuples(st.just("event"), stream_ids),
    st.tuples(st.just("renew"), kinds, buffer_ids),
    st.tuples(st.just("memory is short")),
)  # fmt: skip


@dataclass
class Program:
    """Runs operations as a correctly synchronised program would: what another stream used last is
    waited for on the device, and what the host is about to touch is waited for on the host.
    """

    gpu: PrefetchingGpu
    streams: list[int] = field(init=False)
    held: list[int] = field(default_factory=list)
    """Streams that wait for a value of the program's own."""

    def __post_init__(self) -> None:
        gpu = self.gpu
        self.streams = [0, *(gpu.stream() for _ in range(STREAMS - 1))]
        self.word, self.word_value = gpu.malloc(4), 0
        ctypes.memset(self.word, 0, 4)
        self.opening = gpu.stream()
        self.raw: dict[tuple[str, int], ctypes.Array[ctypes.c_char]] = {}
        self.addresses: dict[tuple[str, int], int] = {}
        self.expected: dict[tuple[str, int], bytearray] = {}
        for index in range(BUFFERS):
            for kind in ("device", "pinned", "registered", "pageable"):
                self.make((kind, index))
        self.last_stream: dict[tuple[str, int], int] = {}

    def make(self, buffer: tuple[str, int]) -> None:
        kind, _ = buffer
        if kind == "device":
            address = self.gpu.malloc(SIZE)
        elif kind == "pinned":
            address = self.gpu.host_alloc(SIZE)
        else:
            self.raw[buffer] = ctypes.create_string_buffer(SIZE)
            address = ctypes.addressof(self.raw[buffer])
            if kind == "registered":
                self.gpu.call("host_register", address, SIZE)
        ctypes.memset(address, 0, SIZE)
        self.addresses[buffer] = address
        self.expected[buffer] = bytearray(SIZE)

    def renew(self, buffer: tuple[str, int]) -> None:
        """Freed, and there again, perhaps at the same address."""
        self.settle(buffer)
        kind, _ = buffer
        if kind == "pinned":
            self.gpu.call("host_free", self.addresses[buffer])
        elif kind == "registered":
            self.gpu.call("host_unregister", self.addresses[buffer])
        self.make(buffer)

    def run(self, operation: tuple[object, ...]) -> None:
        match operation:
            case (
                "copy",
                int(way),
                str(kind),
                int(host),
                int(device),
                (int(at), int(n)),
                int(s),
                bool(a),
            ):
                self.copy(way, (kind, host), ("device", device), at, n, s, a)
            case ("prefetch", str(kind), int(host), (int(at), int(n)), bool(wait)):
                self.gpu.prefetch((self.addresses[kind, host] + at, n), wait=wait and not self.held)
            case ("evict", str(kind), int(host), (int(at), int(n))):
                self.gpu.layer.evict(0, [(self.addresses[kind, host] + at, n)])
            case ("kernel", int(device), int(s)):
                self.kernel(("device", device), s)
            case ("copy within", int(to), int(of), (int(at), int(n)), int(s)):
                self.copy_within(to, of, at, n, s)
            case ("host write", str(kind), int(host), (int(at), int(n)), int(value)):
                self.settle((kind, host))
                ctypes.memset(self.addresses[kind, host] + at, value, n)
                self.expected[kind, host][at : at + n] = bytes([value]) * n
            case ("hold", int(s)):
                self.gpu.call(
                    "stream_wait_value", 0, self.streams[s], self.word, self.word_value + 1
                )
                self.held.append(s)
            case ("let go",):
                self.let_go()
            case ("synchronize", None):
                self.let_go()
                self.gpu.synchronize()
                self.check(None)
            case ("synchronize", int(s)):
                self.synchronize(s)
            case ("event", int(s)):
                self.let_go()
                event = self.gpu.event()
                self.gpu.call("event_record", event, self.streams[s])
                self.gpu.call("event_synchronize", event)
                assert self.gpu.call("event_query", event) == 0
                self.check(s)
                self.gpu.call("event_destroy", event)
            case ("renew", str(kind), int(host)):
                self.renew((kind, host))
            case ("memory is short",):
                self.let_go()
                info = self.gpu.memory_info()
                left = info.total - info.allocated
                with pytest.raises(DriverError) as short:
                    self.gpu.malloc(left + 512)
                assert short.value.status == OUT_OF_MEMORY
                self.gpu.call("free", self.gpu.malloc(left - MIB))
            case _:
                raise AssertionError(operation)
        assert self.gpu.layer.held(0) <= BUDGET

    def let_go(self) -> None:
        if not self.held:
            return
        self.word_value += 1
        self.gpu.call("stream_write_value", 0, self.opening, self.word, self.word_value)
        self.held.clear()

    @contextmanager
    def may_wait(self) -> Iterator[None]:
        """A call that returns at once if there is room, else when its stream has come there."""
        rescue = threading.Timer(0.2, self.let_go)
        if self.held:
            rescue.start()
        yield
        rescue.cancel()
        if rescue.is_alive():
            rescue.join()

    def use(self, buffer: tuple[str, int], stream: int) -> None:
        last = self.last_stream.get(buffer, stream)
        if last != stream:
            event = self.gpu.event()
            self.gpu.call("event_record", event, self.streams[last])
            self.gpu.call("stream_wait_event", 0, self.streams[stream], event)
            self.gpu.call("event_destroy", event)
        self.last_stream[buffer] = stream

    def copy(
        self, way: int, host: tuple[str, int], device: tuple[str, int], at: int, n: int, s: int,
        asynchronous: bool,
    ) -> None:  # fmt: skip
        pageable = host[0] == "pageable"
        if not asynchronous or (pageable and way == D2H):
            self.let_go()  # the program waits
        if not pageable:
            self.use(host, s)
        self.use(device, s)
        source, destination = (host, device) if way == H2D else (device, host)
        # At another place than on the host: the two need not be aligned alike.
        away = (at + 4097) % (SIZE - n + 1)
        offsets = {host: at, device: away}
        with self.may_wait():
            self.gpu.copy(
                way,
                self.addresses[destination] + offsets[destination],
                self.addresses[source] + offsets[source],
                n,
                asynchronous=asynchronous,
                stream=self.streams[s],
            )
        self.expected[destination][offsets[destination] : offsets[destination] + n] = self.expected[
            source
        ][offsets[source] : offsets[source] + n]
        if not asynchronous or pageable:
            self.last_stream.pop(host, None)
        if not asynchronous or (pageable and way == D2H):
            self.check(s)

    def copy_within(self, to: int, of: int, at: int, n: int, stream: int) -> None:
        if to == of:
            return
        target, source = ("device", to), ("device", of)
        self.use(target, stream)
        self.use(source, stream)
        self.gpu.copy_on_device(
            (self.addresses[target] + at, self.addresses[source] + at, n),
            stream=self.streams[stream],
        )
        self.expected[target][at : at + n] = self.expected[source][at : at + n]

    def kernel(self, buffer: tuple[str, int], stream: int) -> None:
        """Turns every byte over, on the CPU in the device's name."""
        self.use(buffer, stream)
        self.let_go()
        self.gpu.call("launch", 0, self.streams[stream])
        turned = bytes.maketrans(bytes(range(256)), bytes(range(255, -1, -1)))
        ctypes.memmove(self.addresses[buffer], self.memory(buffer).translate(turned), SIZE)
        self.expected[buffer] = self.expected[buffer].translate(turned)

    def settle(self, buffer: tuple[str, int]) -> None:
        """Before the host touches it."""
        if buffer in self.last_stream:
            self.synchronize(self.last_stream[buffer])
            self.last_stream.pop(buffer, None)

    def synchronize(self, stream: int) -> None:
        self.let_go()
        self.gpu.synchronize(self.streams[stream])
        self.check(stream)

    def check(self, stream: int | None) -> None:
        """The host's buffers whose last use was on this stream, which is over."""
        for buffer, last in self.last_stream.items():
            if buffer[0] != "device" and stream in (None, last):
                assert self.memory(buffer) == self.expected[buffer], buffer

    def memory(self, buffer: tuple[str, int]) -> bytes:
        return ctypes.string_at(self.addresses[buffer], SIZE)

    def finish(self) -> None:
        self.let_go()
        self.gpu.synchronize()
        for buffer, expected in self.expected.items():
            assert self.memory(buffer) == expected, buffer


@pytest.mark.parametrize("confidential", [True, False], ids=["on", "off"])
@settings(max_examples=150, deadline=None)
@given(program=st.lists(operations, max_size=40))
def test_random_programs_see_what_they_see_without_the_layer(
    confidential: bool, program: list[tuple[object, ...]]
) -> None:
    gpu = PrefetchingGpu(Gpu(confidential=confidential, memory_bytes=DEVICE))
    gpu.warm_up()
    running = Program(gpu)
    try:
        for operation in program:
            running.run(operation)
        running.finish()
    finally:
        running.let_go()
        gpu.layer.stop()


def test_several_threads_see_what_they_see_without_the_layer() -> None:
    gpu = PrefetchingGpu(Gpu(memory_bytes=256 * MIB))
    gpu.warm_up()
    errors: list[BaseException] = []

    def client(seed: int) -> None:
        chance = random.Random(seed)
        try:
            running = Program(gpu)
            for _ in range(150):
                running.run(_random_operation(chance))
            running.finish()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gpu.layer.stop()
    assert errors == []


def _random_operation(chance: random.Random) -> tuple[object, ...]:
    """Of those that do not take all memory: other threads would be refused theirs."""
    kind = chance.choice(["pinned", "registered", "pageable"])
    start = chance.randrange(SIZE)
    part = chance.choice([(0, SIZE), (start, chance.randrange(1, SIZE - start + 1))])
    host, device, stream = (chance.randrange(3) for _ in range(3))
    return chance.choice(
        [
            ("copy", chance.choice([H2D, D2H]), kind, host, device, part, stream, True),
            ("copy", chance.choice([H2D, D2H]), kind, host, device, part, stream, False),
            ("copy", H2D, "pinned", host, device, (0, SIZE), stream, True),
            ("prefetch", kind, host, part, False),
            ("prefetch", "pinned", host, (0, SIZE), False),
            ("kernel", device, stream),
            ("host write", kind, host, part, chance.randrange(256)),
            ("synchronize", stream),
            ("event", stream),
            ("renew", kind, host),
        ]
    )
