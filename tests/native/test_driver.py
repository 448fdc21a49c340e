"""The driver's promises one by one: memory, lifetimes, confidential computing, forks."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from pipellm import _native
from pipellm.bench.driver_table import (
    CONTEXT_LOST,
    D2H,
    H2D,
    INVALID_DEVICE,
    INVALID_HANDLE,
    INVALID_VALUE,
    NOT_READY,
    NOT_SUPPORTED,
    OK,
    OUT_OF_MEMORY,
    DriverError,
    Release,
)

from .gpu import Gpu, cost_model, path

MIB = 1 << 20

both_modes = pytest.mark.parametrize("confidential", [False, True], ids=["off", "on"])


def host_bytes(content: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(content, len(content))


def round_trip(gpu: Gpu, content: bytes, device: int = 0) -> bytes:
    source, back = host_bytes(content), host_bytes(bytes(len(content)))
    memory = gpu.malloc(len(content), device)
    gpu.copy(H2D, memory, ctypes.addressof(source), len(content), device=device)
    gpu.copy(D2H, ctypes.addressof(back), memory, len(content), device=device)
    gpu.call("free", memory)
    return back.raw


@both_modes
@pytest.mark.parametrize("nbytes", [1, 15, 16, 17, MIB - 1, MIB, MIB + 1, 40 * MIB + 3])
def test_bytes_come_back_as_they_went(confidential: bool, nbytes: int) -> None:
    gpu = Gpu(confidential=confidential)
    content = os.urandom(nbytes)
    assert round_trip(gpu, content) == content
    assert gpu.counted["h2d_transfers"] == gpu.counted["d2h_transfers"] == 1
    assert gpu.counted["h2d_bytes"] == gpu.counted["d2h_bytes"] == nbytes
    assert gpu.counted["h2d_swaps"] == (nbytes > _native.SWAP_BYTES)


@both_modes
def test_devices_keep_their_memory_apart(confidential: bool) -> None:
    gpu = Gpu(confidential=confidential, devices=2)
    assert round_trip(gpu, b"first", 0) == b"first"
    memory = gpu.malloc(100, 1)
    assert gpu.ask("device_of", memory) == 1
    assert gpu.ask("device_of", memory + 99) == 1
    assert gpu.memory_info(0).allocated == 0
    with pytest.raises(DriverError, match="no GPU 2, only 2") as error:
        gpu.malloc(1, 2)
    assert error.value.status == INVALID_DEVICE


def test_device_memory_has_an_end() -> None:
    gpu = Gpu(memory_bytes=8 * MIB)
    first = gpu.malloc(5 * MIB)
    with pytest.raises(DriverError, match="out of memory on GPU 0") as error:
        gpu.malloc(5 * MIB)
    assert error.value.status == OUT_OF_MEMORY
    gpu.call("free", first)
    gpu.malloc(5 * MIB)
    info = gpu.memory_info()
    assert (info.total, info.allocated) == (8 * MIB, 5 * MIB)


@pytest.mark.parametrize("nbytes", [1, 512, 3_000_000, 5 * MIB + 1])
def test_device_memory_is_counted_in_units_of_512_bytes(nbytes: int) -> None:
    gpu = Gpu()
    memory = gpu.malloc(nbytes)
    assert gpu.memory_info().allocated == -(-nbytes // 512) * 512
    gpu.call("free", memory)
    assert gpu.memory_info().allocated == 0


def test_memory_that_only_a_finished_copy_holds_is_found_again() -> None:
    gpu = Gpu(confidential=False, memory_bytes=4 * MIB)
    memory = gpu.malloc(3 * MIB)
    source = gpu.host_alloc(3 * MIB)
    release = Release(lambda token: gpu.call("free", token))
    gpu.copy(H2D, memory, source, 3 * MIB, asynchronous=True, release=release, token=memory)
    gpu.synchronize()
    assert gpu.malloc(3 * MIB)


def stream_through(gpu: Gpu, pieces: int, nbytes: int) -> int:
    """Copies without waiting, each to new memory that nothing but the copy keeps alive.

    Returns how many bytes were in use at most.
    """
    peak = 0
    source = gpu.host_alloc(nbytes)
    release = Release(lambda token: gpu.call("free", token))
    for _ in range(pieces):
        memory = gpu.malloc(nbytes)
        gpu.copy(H2D, memory, source, nbytes, asynchronous=True, release=release, token=memory)
        peak = max(peak, gpu.memory_info().allocated)
    gpu.synchronize()
    assert gpu.memory_info().allocated == 0
    return peak


def test_queued_copies_keep_no_more_memory_than_a_part_of_the_device() -> None:
    """CUDA's allocator hands the destination of a queued copy out again in stream order."""
    gpu = Gpu(confidential=False, memory_bytes=1 << 40)
    assert stream_through(gpu, pieces=300, nbytes=8 * MIB) <= 100 * MIB
    assert gpu.clock.now() == 0  # the program is not charged for the waiting


def test_memory_that_only_a_queued_copy_holds_is_waited_for() -> None:
    gpu = Gpu(confidential=False, memory_bytes=20 * MIB)
    stream_through(gpu, pieces=100, nbytes=8 * MIB)


def test_freeing_what_is_not_ours_is_an_error() -> None:
    gpu = Gpu()
    gpu.call("free", None)
    for entry in ("free", "host_free"):
        with pytest.raises(DriverError) as error:
            gpu.call(entry, ctypes.addressof(host_bytes(b"x")))
        assert error.value.status == INVALID_VALUE


@both_modes
def test_a_copys_token_is_released_once_and_in_a_driver_call(confidential: bool) -> None:
    gpu = Gpu(confidential=confidential)
    released: list[int] = []
    release = Release(released.append)
    memory, host = gpu.malloc(MIB), gpu.host_alloc(MIB)
    for token in range(1, 6):
        gpu.copy(H2D, memory, host, MIB, asynchronous=True, release=release, token=token)
    gpu.synchronize()
    assert sorted(released) == [1, 2, 3, 4, 5]
    with pytest.raises(DriverError):
        gpu.copy(H2D, memory, host, MIB, device=7, release=release, token=6)
    assert released[-1] == 6


def test_confidential_computing_refuses_registration_and_knows_no_pinned_memory() -> None:
    gpu = Gpu(confidential=True)
    memory = host_bytes(bytes(4096))
    with pytest.raises(DriverError, match="cudaHostRegister is not supported") as error:
        gpu.call("host_register", ctypes.addressof(memory), 4096)
    assert error.value.status == NOT_SUPPORTED
    assert not gpu.ask("is_pinned", gpu.host_alloc(64))


def test_registered_memory_is_pinned_until_it_is_unregistered() -> None:
    gpu = Gpu(confidential=False)
    memory = ctypes.addressof(kept := host_bytes(bytes(4096)))
    assert not gpu.ask("is_pinned", memory)
    gpu.call("host_register", memory, 4096)
    assert gpu.ask("is_pinned", memory + 4095)
    assert not gpu.ask("is_pinned", memory + 4096)
    with pytest.raises(DriverError, match="pinned already"):
        gpu.call("host_register", memory + 100, 10)
    gpu.call("host_unregister", memory)
    assert not gpu.ask("is_pinned", memory)
    with pytest.raises(DriverError, match="was not registered"):
        gpu.call("host_unregister", memory)
    del kept


def test_an_unknown_stream_is_refused() -> None:
    gpu = Gpu()
    stream = gpu.stream()
    gpu.synchronize(stream)
    with pytest.raises(DriverError, match=f"no stream {stream + 1}") as error:
        gpu.synchronize(stream + 1)
    assert error.value.status == INVALID_HANDLE


def test_queries_follow_the_devices_time() -> None:
    gpu = Gpu()
    stream, event = gpu.stream(), gpu.event()
    gpu.call("busy", 0, stream, 1000)
    gpu.call("event_record", event, stream)
    assert gpu.call("stream_query", 0, stream) == NOT_READY
    assert gpu.call("event_query", event) == NOT_READY
    gpu.clock.advance(1000)
    assert gpu.call("stream_query", 0, stream) == OK
    assert gpu.call("event_query", event) == OK


def test_an_event_of_one_device_holds_back_another() -> None:
    gpu = Gpu(devices=2)
    event = gpu.event(0)
    gpu.call("busy", 0, 0, 5000)
    gpu.call("event_record", event, 0)
    gpu.call("stream_wait_event", 1, 0, event)
    gpu.synchronize(device=1)
    assert gpu.clock.now() == 5000


def test_a_copy_waiting_for_its_stream_leaves_the_engine_to_others_unless_sealed() -> None:
    costs = path(engine=[(0, 1000), (1, 1000)])
    pageable = host_bytes(bytes(64))
    for confidential, expected in ((False, 1000), (True, 11_000)):
        gpu = Gpu(confidential=confidential, cost=cost_model(costs, duplex=not confidential))
        waiting, free = gpu.stream(), gpu.stream()
        # The kind of memory whose asynchronous copies do not block, in either mode.
        source = ctypes.addressof(pageable) if confidential else gpu.host_alloc(64)
        memory = gpu.malloc(64)
        gpu.call("busy", 0, waiting, 9000)
        for stream in (waiting, free):
            gpu.copy(H2D, memory, source, 64, asynchronous=True, stream=stream)
        gpu.synchronize(free)
        assert gpu.clock.now() == expected


def test_large_sealed_copies_overlap_sealing_and_the_engine_but_not_more() -> None:
    # 1 µs per MiB on the engine, and a call paced to 4 µs per MiB: the engine's share of the last
    # chunk comes after the host's time.
    costs = path(engine=[(0, 0), (MIB, 1000)], call=[(0, 0), (MIB, 4000)])
    gpu = Gpu(confidential=True, cost=cost_model(costs, duplex=False))
    content = bytes(40 * MIB)
    round_trip(gpu, content)
    assert gpu.clock.now() == pytest.approx(2 * 40 * 4000, rel=0.01)


# A thread that holds the GIL while it waits would keep the tap from ever returning.
WAIT_FOR_A_TAP = """
import ctypes, os, threading
from pipellm.bench.driver_table import H2D
from tests.native.gpu import Gpu

gpu = Gpu()
inside, go_on = threading.Event(), threading.Event()
gpu.driver.set_tap(0, lambda *_: (inside.set(), go_on.wait()))
memory, source = gpu.malloc(64), ctypes.create_string_buffer(64)
copying = threading.Thread(target=lambda: gpu.copy(H2D, memory, ctypes.addressof(source), 64))
copying.start()
inside.wait()
waiting = threading.Thread(target=lambda: gpu.driver.skip_to(0, H2D, 100))
waiting.start()
go_on.set()
waiting.join()
copying.join()
print("both are done", flush=True)
os._exit(0)
"""


def test_who_waits_for_the_channel_lets_others_run_python() -> None:
    run = subprocess.run(
        [sys.executable, "-c", WAIT_FOR_A_TAP],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert run.stdout == "both are done\n", run.stderr


def in_child(body: Callable[[], None]) -> int:
    """Runs `body` in a forked child; its exit status, 0 if it raised nothing."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            body()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_child_of_a_process_that_used_the_gpu_is_told_so() -> None:
    gpu = Gpu()
    memory = gpu.malloc(64)
    round_trip(gpu, os.urandom(3 * MIB))  # the engine's thread runs

    def child() -> None:
        assert gpu.ask("in_bad_fork")
        gpu.call("free", memory)  # as a garbage collector would
        with pytest.raises(DriverError, match="forked after it had used the GPU") as error:
            gpu.malloc(64)
        assert error.value.status == CONTEXT_LOST

    assert in_child(child) == 0
    assert round_trip(gpu, b"the parent goes on") == b"the parent goes on"


def test_a_child_of_a_process_that_never_used_the_gpu_has_its_own() -> None:
    gpu = Gpu()

    def child() -> None:
        assert not gpu.ask("in_bad_fork")
        assert round_trip(gpu, os.urandom(2 * MIB))

    assert in_child(child) == 0
    assert round_trip(gpu, b"so has the parent") == b"so has the parent"
