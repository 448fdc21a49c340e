"""Random programs on the driver behave as a simple model of CUDA's rules says: bytes and times."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipellm.bench.driver_table import D2H, H2D

from .cuda_rules import CudaRules
from .gpu import Gpu, cost_model, path

STREAMS = 3
BUFFERS = 4
LAUNCH, TOLL, CALL_EXTRA = 5_000, 20_000, 7_000
WITHIN_NS_PER_BYTE, WITHIN_BASE = 2, 300

sizes = st.integers(min_value=1, max_value=4096)
stream_ids = st.integers(0, STREAMS - 1)
buffer_ids = st.integers(0, BUFFERS - 1)

operations = st.one_of(
    st.tuples(
        st.just("copy"), st.sampled_from([H2D, D2H]), buffer_ids, buffer_ids, sizes, stream_ids,
        st.booleans(), st.booleans(),
    ),
    st.tuples(st.just("kernel"), buffer_ids, stream_ids),
    st.tuples(
        st.just("copies within"), st.permutations(range(BUFFERS)), st.integers(1, BUFFERS // 2),
        sizes, stream_ids,
    ),
    st.tuples(st.just("fill"), buffer_ids, st.integers(0, 255), sizes, stream_ids),
    st.tuples(st.just("host write"), st.booleans(), buffer_ids, st.integers(0, 255)),
    st.tuples(st.just("work"), stream_ids, st.integers(0, 100_000)),
    st.tuples(st.just("synchronize"), st.one_of(st.none(), stream_ids)),
    st.tuples(st.just("wait"), stream_ids, stream_ids),
    st.tuples(st.just("time"), stream_ids),
    st.tuples(st.just("host work"), st.integers(0, 50_000)),
)  # fmt: skip


@dataclass
class Program:
    """Runs operations on a driver and on the model, as a correctly synchronised program would.

    A buffer that another stream, or the host, used last is waited for before it is used again: what
    CUDA leaves undefined is not tested.
    """

    gpu: Gpu
    rules: CudaRules
    streams: list[int] = field(init=False)
    events: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.streams = [0, *(self.gpu.stream() for _ in range(STREAMS - 1))]
        self.pageable = [ctypes.create_string_buffer(4096) for _ in range(BUFFERS)]
        addresses = {
            "device": [self.gpu.malloc(4096) for _ in range(BUFFERS)],
            "pinned": [self.gpu.host_alloc(4096) for _ in range(BUFFERS)],
            "pageable": [ctypes.addressof(buffer) for buffer in self.pageable],
        }
        self.addresses = {
            (kind, i): address for kind, of in addresses.items() for i, address in enumerate(of)
        }
        self.expected = {buffer: bytearray(4096) for buffer in self.addresses}
        for address in self.addresses.values():
            ctypes.memset(address, 0, 4096)
        self.last_stream: dict[tuple[str, int], int] = {}

    def run(self, operation: tuple[object, ...]) -> None:
        match operation:
            case ("copy", int(direction), int(host), int(device), int(n), int(s), bool(p), bool(a)):
                self.copy(direction, ("pinned" if p else "pageable", host), device, n, s, a)
            case ("copies within", [*order], int(pairs), int(n), int(s)):
                ids = [int(str(each)) for each in order]
                self.copy_within([(ids[2 * i], ids[2 * i + 1]) for i in range(pairs)], n, s)
            case ("fill", int(device), int(value), int(n), int(s)):
                self.fill(("device", device), value, n, s)
            case ("kernel", int(device), int(s)):
                self.kernel(("device", device), s)
            case ("host write", bool(p), int(host), int(value)):
                self.host_write(("pinned" if p else "pageable", host), value)
            case ("work", int(s), int(duration)):
                self.gpu.call("busy", 0, self.streams[s], duration)
                self.rules.work(s, duration)
            case ("synchronize", None):
                self.gpu.synchronize()
                self.rules.wait(max(self.rules.finish))
            case ("synchronize", int(s)):
                self.synchronize(s)
            case ("wait", int(s), int(other)):
                self.wait_for(s, other)
            case ("time", int(s)):
                event = self.gpu.event()
                self.gpu.call("event_record", event, self.streams[s])
                self.events.append((event, self.rules.record(s)))
            case ("host work", int(duration)):
                self.gpu.clock.advance(duration)
                self.rules.now += duration
            case _:
                raise AssertionError(operation)
        assert self.gpu.clock.now() == self.rules.now, operation

    def use(self, buffer: tuple[str, int], stream: int) -> None:
        last = self.last_stream.get(buffer, stream)
        if last != stream:
            self.wait_for(stream, last)
        self.last_stream[buffer] = stream

    def wait_for(self, stream: int, other: int) -> None:
        event = self.gpu.event()
        self.gpu.call("event_record", event, self.streams[other])
        self.gpu.call("stream_wait_event", 0, self.streams[stream], event)
        self.gpu.call("event_destroy", event)
        self.rules.wait_event(stream, self.rules.record(other))

    def synchronize(self, stream: int) -> None:
        self.gpu.synchronize(self.streams[stream])
        self.rules.wait(self.rules.finish[stream])

    def copy(
        self, direction: int, host: tuple[str, int], index: int, n: int, stream: int, a: bool
    ) -> None:
        device = ("device", index)
        self.use(host, stream)
        self.use(device, stream)
        source, destination = (host, device) if direction == H2D else (device, host)
        self.gpu.copy(
            direction, self.addresses[destination], self.addresses[source], n,
            asynchronous=a, stream=self.streams[stream],
        )  # fmt: skip
        self.rules.copy(direction, n, stream=stream, pinned=host[0] == "pinned", asynchronous=a)
        self.expected[destination][:n] = self.expected[source][:n]

    def copy_within(self, pairs: list[tuple[int, int]], n: int, stream: int) -> None:
        for buffer in (buffer for pair in pairs for buffer in pair):
            self.use(("device", buffer), stream)
        self.gpu.copy_on_device(
            *((self.addresses["device", to], self.addresses["device", of], n) for to, of in pairs),
            stream=self.streams[stream],
        )
        self.rules.within(n * len(pairs), len(pairs), stream=stream)
        for to, of in pairs:
            self.expected["device", to][:n] = self.expected["device", of][:n]

    def fill(self, buffer: tuple[str, int], value: int, n: int, stream: int) -> None:
        self.use(buffer, stream)
        self.gpu.call("fill", 0, self.streams[stream], self.addresses[buffer], value, n)
        self.rules.work(stream, (n * WITHIN_NS_PER_BYTE + WITHIN_BASE) // 2)
        self.expected[buffer][:n] = bytes([value]) * n

    def kernel(self, buffer: tuple[str, int], stream: int) -> None:
        """Adds 1 to every byte, on the CPU in the device's name."""
        self.use(buffer, stream)
        self.gpu.call("launch", 0, self.streams[stream])
        self.rules.now += LAUNCH
        for memory in (self.memory(buffer), self.expected[buffer]):
            memory[:] = bytes((byte + 1) % 256 for byte in memory)

    def host_write(self, buffer: tuple[str, int], value: int) -> None:
        if buffer in self.last_stream:
            self.synchronize(self.last_stream.pop(buffer))
        self.memory(buffer)[:] = bytes([value]) * 4096
        self.expected[buffer][:] = bytes([value]) * 4096

    def memory(self, buffer: tuple[str, int]) -> memoryview:
        return memoryview((ctypes.c_char * 4096).from_address(self.addresses[buffer])).cast("B")

    def finish(self) -> None:
        self.gpu.synchronize()
        self.rules.wait(max(self.rules.finish))
        assert self.gpu.clock.now() == self.rules.now
        for buffer, expected in self.expected.items():
            assert self.memory(buffer) == expected, buffer
        for (start, model_start), (end, model_end) in zip(
            self.events, self.events[1:], strict=False
        ):
            assert self.gpu.elapsed_ms(start, end) * 1e6 == pytest.approx(model_end - model_start)


def run_beside_the_model(
    make_gpu: Callable[..., Gpu], confidential: bool, program: list[tuple[object, ...]]
) -> None:
    copies = (
        path(engine=[(0, 0), (1000, 3000)], toll=TOLL)
        if confidential
        else path(engine=[(0, 0), (1000, 3000)], call=[(0, CALL_EXTRA), (1000, CALL_EXTRA + 3000)])
    )
    gpu = make_gpu(
        confidential=confidential,
        cost=cost_model(
            copies,
            within=[(0, WITHIN_BASE), (1000, WITHIN_BASE + 1000 * WITHIN_NS_PER_BYTE)],
            launch=LAUNCH,
            duplex=not confidential,
        ),
    )
    rules = CudaRules(
        streams=STREAMS,
        confidential=confidential,
        launch=LAUNCH,
        toll=TOLL,
        engine_ns_per_byte=3,
        call_extra=CALL_EXTRA,
        within_ns_per_byte=WITHIN_NS_PER_BYTE,
        within_base=WITHIN_BASE,
    )
    running = Program(gpu, rules)
    for operation in program:
        running.run(operation)
    running.finish()


@pytest.mark.parametrize("confidential", [False, True], ids=["off", "on"])
@settings(max_examples=200, deadline=None)
@given(program=st.lists(operations, max_size=30))
def test_random_programs_follow_cudas_rules(
    confidential: bool, program: list[tuple[object, ...]]
) -> None:
    run_beside_the_model(Gpu, confidential, program)


class RecordedGpu(Gpu):
    """Under a layer that writes down what passes."""

    def lay_over(self) -> None:
        with tempfile.TemporaryDirectory() as directory:  # a file that is mapped stays
            self.driver.record(directory)


@pytest.mark.parametrize("confidential", [False, True], ids=["off", "on"])
@given(program=st.lists(operations, max_size=30))
@settings(deadline=None, max_examples=40)
def test_a_layer_that_only_listens_changes_neither_bytes_nor_times(
    confidential: bool, program: list[tuple[object, ...]]
) -> None:
    run_beside_the_model(RecordedGpu, confidential, program)


def test_a_layer_goes_over_a_driver_before_anybody_has_its_table(tmp_path: Path) -> None:
    gpu = Gpu()
    with pytest.raises(RuntimeError, match="before anybody has its table"):
        gpu.driver.record(str(tmp_path))
