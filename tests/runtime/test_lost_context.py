"""A lost context lets go of everything at once: memory, tokens, threads."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys

import pytest

from pipellm.bench.driver_table import CONTEXT_LOST, D2H, H2D, DriverError, Release
from tests.runtime.planned import MIB, PlannedGpu

DIRECTIONS = pytest.mark.parametrize("direction", [H2D, D2H], ids=["H2D", "D2H"])
NBYTES = 24 * MIB  # more messages than the bounce buffer has slots


def lose(gpu: PlannedGpu, direction: int, number: int, *, asynchronous: bool) -> None:
    """Loses the context over message `number` of one copy, and unmaps its memory there and then."""
    gpu.driver.tamper(direction, number)
    host = mmap.mmap(-1, NBYTES, flags=mmap.MAP_PRIVATE)
    address = ctypes.addressof(view := ctypes.c_char.from_buffer(host))
    gpu.call("host_register", address, NBYTES)
    device = gpu.malloc(NBYTES)
    destination, source = (device, address) if direction == H2D else (address, device)
    status, text = 0, ""
    try:
        gpu.copy(direction, destination, source, NBYTES, asynchronous=asynchronous)
        gpu.synchronize()
    except DriverError as error:
        del view
        host.close()
        status, text = error.status, str(error)
    assert status == CONTEXT_LOST
    assert f"message {number} is not what its sender sealed" in text


def main() -> None:
    direction, asynchronous = int(sys.argv[1]), bool(int(sys.argv[2]))
    gpus = []
    for number in (1, 2, 3, 9, 16, 17, 24):
        gpus.append(PlannedGpu())
        lose(gpus[-1], direction, number, asynchronous=asynchronous)
    print("every time")


@DIRECTIONS
@pytest.mark.parametrize("asynchronous", [False, True], ids=["blocking", "asynchronous"])
def test_memory_may_go_the_moment_that_the_program_hears_of_it(
    direction: int, asynchronous: bool
) -> None:
    command = [sys.executable, "-m", "tests.runtime.test_lost_context"]
    run = subprocess.run(
        [*command, str(direction), str(int(asynchronous))],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (0, "every time\n"), run.stderr


def test_a_lost_context_releases_every_token_before_it_says_so() -> None:
    gpu = PlannedGpu()
    gpu.driver.tamper(H2D, 7)
    released: list[int] = []
    release = Release(released.append)
    host, device = gpu.host_alloc(MIB), gpu.malloc(MIB)
    taken: list[int] = []

    def copy_on_and_on() -> None:
        for token in range(1, 100):
            taken.append(token)
            direction, pair = (H2D, (device, host)) if token % 2 else (D2H, (host, device))
            gpu.copy(direction, *pair, MIB, asynchronous=True, release=release, token=token)
        gpu.synchronize()

    with pytest.raises(DriverError, match="authentication failed: H2D message 7 "):
        copy_on_and_on()
    assert sorted(released) == taken


@DIRECTIONS
@pytest.mark.parametrize("asynchronous", [False, True], ids=["blocking", "asynchronous"])
def test_a_forged_message_after_the_threads_were_stopped_is_an_error_like_any(
    direction: int, asynchronous: bool
) -> None:
    """As at the exit of a process, where a later exit handler copies."""
    gpu = PlannedGpu()
    gpu.load(gpu.host_alloc(MIB), MIB)
    gpu.driver.stop_threads()
    gpu.driver.set_tap(0, lambda _direction, _number, message: message.__setitem__(9, 1))
    host, device = gpu.host_alloc(4 * MIB), gpu.malloc(4 * MIB)
    destination, source = (device, host) if direction == H2D else (host, device)

    def copy_and_wait() -> None:
        gpu.copy(direction, destination, source, 4 * MIB, asynchronous=asynchronous)
        gpu.synchronize()

    with pytest.raises(DriverError, match="authentication failed"):
        copy_and_wait()


def test_copies_after_the_threads_were_stopped_arrive() -> None:
    gpu = PlannedGpu()
    host, device = gpu.host_alloc(NBYTES), gpu.malloc(NBYTES)
    ctypes.memset(host, 0, NBYTES)
    gpu.copy(H2D, device, host, NBYTES)
    gpu.driver.stop_threads()
    for byte in range(1, 6):
        ctypes.memset(device, byte, NBYTES)
        gpu.copy(D2H, host, device, NBYTES, asynchronous=True)
        gpu.synchronize()
        assert ctypes.string_at(host, NBYTES) == bytes([byte]) * NBYTES


if __name__ == "__main__":
    main()
