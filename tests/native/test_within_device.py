"""Copies within a device's memory, and streams that wait for a value there."""

from __future__ import annotations

import ctypes
import threading

import pytest

from pipellm.bench.driver_table import (
    CONTEXT_LOST,
    D2H,
    H2D,
    INVALID_VALUE,
    NOT_READY,
    OK,
    DriverError,
)

from .gpu import Gpu, cost_model

LAUNCH = 5_000
SIZE = 3 << 20


@pytest.fixture(params=[False, True], ids=["off", "on"])
def gpu(request: pytest.FixtureRequest) -> Gpu:
    within = [(0.0, 0.0), (1000.0, 1000.0)]
    return Gpu(confidential=request.param, cost=cost_model(within=within, launch=LAUNCH))


def test_several_copies_are_one_launch_and_take_their_stream_as_long_as_all_of_them(
    gpu: Gpu,
) -> None:
    first, second, third, fourth = (gpu.malloc(4096) for _ in range(4))
    ctypes.memset(first, 1, 4096)
    ctypes.memset(third, 3, 4096)

    gpu.copy_on_device((second, first, 4096), (fourth, third, 1000))

    assert gpu.clock.now() == LAUNCH
    gpu.synchronize()
    assert gpu.clock.now() == LAUNCH + 5096
    assert ctypes.string_at(second, 4096) == bytes([1]) * 4096
    assert ctypes.string_at(fourth, 1000) == bytes([3]) * 1000


def test_they_come_after_and_before_what_else_is_on_their_stream(gpu: Gpu) -> None:
    here, there = gpu.malloc(SIZE), gpu.malloc(SIZE)
    source, back = gpu.host_alloc(SIZE), gpu.host_alloc(SIZE)
    ctypes.memset(source, 7, SIZE)
    gpu.call("fill", 0, 0, here, 1, SIZE)
    gpu.copy(H2D, here, source, SIZE, asynchronous=True)
    gpu.copy_on_device((there, here, SIZE))
    gpu.call("fill", 0, 0, here, 2, SIZE)
    gpu.copy(D2H, back, there, SIZE, asynchronous=True)
    gpu.synchronize()
    assert ctypes.string_at(back, SIZE) == bytes([7]) * SIZE


def test_what_is_not_the_devices_memory_is_refused(gpu: Gpu) -> None:
    device, host = gpu.malloc(4096), gpu.host_alloc(4096)
    for arguments in ((device, host, 1), (host, device, 1), (device, device + 4000, 97)):
        with pytest.raises(DriverError, match="its own memory") as refused:
            gpu.copy_on_device(arguments)
        assert refused.value.status == INVALID_VALUE
    with pytest.raises(DriverError, match="its own memory"):
        gpu.call("fill", 0, 0, device, 0, 4097)
    for entry in ("stream_write_value", "stream_wait_value"):
        with pytest.raises(DriverError, match="its own memory"):
            gpu.call(entry, 0, 0, host, 1)
        with pytest.raises(DriverError, match="aligned"):
            gpu.call(entry, 0, 0, device + 2, 1)


@pytest.fixture
def word(gpu: Gpu) -> int:
    address = gpu.malloc(4)
    ctypes.memset(address, 0, 4)
    return address


def test_a_stream_that_waits_for_a_value_goes_on_when_it_is_written(gpu: Gpu, word: int) -> None:
    waiting, writing = gpu.stream(), gpu.stream()
    source, target = gpu.malloc(64), gpu.malloc(64)
    ctypes.memset(source, 1, 64)
    ctypes.memset(target, 0, 64)
    start, event = gpu.event(), gpu.event()
    gpu.call("event_record", start, waiting)

    gpu.call("stream_wait_value", 0, waiting, word, 2)
    gpu.copy_on_device((target, source, 64), stream=waiting)
    gpu.call("event_record", event, waiting)

    gpu.clock.advance(1_000_000)
    assert gpu.call("stream_query", 0, waiting) == NOT_READY
    assert gpu.call("event_query", event) == NOT_READY
    assert gpu.call("stream_query", 0, writing) == OK
    gpu.call("stream_write_value", 0, writing, word, 1)
    gpu.synchronize(writing)
    assert gpu.call("stream_query", 0, waiting) == NOT_READY
    assert ctypes.string_at(target, 64) == bytes(64)

    gpu.call("busy", 0, writing, 70_000)
    written = gpu.clock.now() + 70_000
    gpu.call("stream_write_value", 0, writing, word, 2)
    gpu.synchronize(waiting)
    assert gpu.clock.now() == written + 64
    assert gpu.elapsed_ms(start, event) * 1e6 == pytest.approx(written + 64)
    assert ctypes.string_at(target, 64) == bytes([1]) * 64


def test_a_greater_value_will_do_and_so_will_one_past_the_wrap(gpu: Gpu, word: int) -> None:
    stream = gpu.stream()
    for wanted, written in ((5, 9), (0xFFFFFFFE, 1)):
        gpu.call("stream_write_value", 0, 0, word, (wanted - 1) % (1 << 32))
        gpu.call("stream_wait_value", 0, stream, word, wanted)
        assert gpu.call("stream_query", 0, stream) == NOT_READY
        gpu.call("stream_write_value", 0, 0, word, written)
        assert gpu.call("stream_query", 0, stream) == OK


def test_a_value_that_is_there_already_is_not_waited_for(gpu: Gpu, word: int) -> None:
    stream = gpu.stream()
    gpu.call("stream_write_value", 0, 0, word, 3)
    gpu.call("stream_wait_value", 0, stream, word, 3)
    assert gpu.call("stream_query", 0, stream) == OK
    host = gpu.host_alloc(4)
    gpu.copy(D2H, host, word, 4)
    assert ctypes.string_at(host, 4) == (3).to_bytes(4, "little")


def test_other_streams_wait_through_an_event(gpu: Gpu, word: int) -> None:
    first, second, third = gpu.stream(), gpu.stream(), gpu.stream()
    event = gpu.event()
    gpu.call("stream_wait_value", 0, first, word, 1)
    gpu.call("busy", 0, first, 500)
    gpu.call("event_record", event, first)
    gpu.call("stream_wait_event", 0, second, event)
    gpu.call("busy", 0, second, 300)
    gpu.call("event_record", event, third)  # anew: who waits, waits for what it was
    assert gpu.call("event_query", event) == OK
    assert gpu.call("stream_query", 0, second) == NOT_READY
    gpu.call("event_destroy", event)
    issued = gpu.clock.now()

    gpu.call("stream_write_value", 0, third, word, 1)
    gpu.synchronize(second)

    assert gpu.clock.now() == issued + 500 + 300


def test_a_thread_that_waits_hears_of_a_value_that_another_writes(gpu: Gpu, word: int) -> None:
    stream = gpu.stream()
    device, host = gpu.malloc(SIZE), gpu.host_alloc(SIZE)
    ctypes.memset(host, 4, SIZE)
    waits = (
        lambda: gpu.synchronize(stream),
        lambda: gpu.synchronize(),
        lambda: gpu.call("launch", 0, stream),
        lambda: gpu.copy(H2D, device, host, SIZE, asynchronous=True, stream=stream),
    )
    for value, wait in enumerate(waits, 1):
        gpu.call("stream_wait_value", 0, stream, word, value)
        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join(timeout=0.02)
        assert waiting.is_alive()
        gpu.call("stream_write_value", 0, 0, word, value)
        waiting.join()


def test_a_lost_context_is_told_to_who_waits_for_a_value(word: int, gpu: Gpu) -> None:
    if not gpu.ask("confidential"):
        pytest.skip("without a channel no context is lost")
    stream = gpu.stream()
    gpu.call("stream_wait_value", 0, stream, word, 1)
    heard: list[int] = []

    def wait() -> None:
        with pytest.raises(DriverError) as lost:
            gpu.synchronize(stream)
        heard.append(lost.value.status)

    waiting = threading.Thread(target=wait)
    waiting.start()
    gpu.driver.set_tap(
        0, lambda _direction, _number, message: message.__setitem__(0, message[0] ^ 1)
    )
    device, host = gpu.malloc(64), gpu.host_alloc(64)
    with pytest.raises(DriverError):
        gpu.copy(H2D, device, host, 64)
    waiting.join()
    assert heard == [CONTEXT_LOST]


def test_freed_memory_forgets_the_values_that_were_written_there(gpu: Gpu) -> None:
    word = gpu.malloc(4)
    gpu.call("stream_write_value", 0, 0, word, 100)
    gpu.synchronize()
    gpu.call("free", word)
    again = gpu.malloc(4)
    assert again == word  # the driver keeps blocks of a size
    ctypes.memset(again, 0, 4)
    stream = gpu.stream()
    gpu.call("stream_wait_value", 0, stream, again, 1)
    assert gpu.call("stream_query", 0, stream) == NOT_READY
    gpu.call("stream_write_value", 0, 0, again, 1)
    gpu.synchronize(stream)
