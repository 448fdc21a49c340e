"""What an outsider sees at the bounce buffer says nothing, and what he does there is noticed."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from pipellm.bench.driver_table import CONTEXT_LOST, D2H, H2D, NOT_PERMITTED, DriverError

from .gpu import Gpu

MIB = 1 << 20
DIRECTIONS = pytest.mark.parametrize("direction", [H2D, D2H], ids=["H2D", "D2H"])
TAG = MIB  # where the tag starts, right behind a whole message

Spoil = Callable[[memoryview, dict[int, bytes]], None]

SLOT = MIB + 4096  # one message in the ring; number n lies in slot n % 16

# Another process reads the bounce buffer, as anybody on the host could, and looks for 16 bytes in
# a row that are in the plaintext as well. So many never come in a row by chance.
OUTSIDER = """
import sys
content = open(sys.argv[1], "rb").read()
windows = {content[i : i + 16] for i in range(0, len(content) - 15)}
seen = open(sys.argv[2], "rb").read()
print(len(seen.strip(b"\\0")), sum(seen[i : i + 16] in windows for i in range(len(seen) - 15)))
"""


class Memory:
    """Device and host memory of a few messages."""

    def __init__(self, gpu: Gpu, content: bytes) -> None:
        self.gpu = gpu
        self.nbytes = len(content)
        self.host = ctypes.create_string_buffer(content, len(content))
        self.device = gpu.malloc(len(content))
        ctypes.memmove(self.device, content, len(content))

    def copy(self, direction: int, nbytes: int | None = None) -> None:
        pair = (self.device, ctypes.addressof(self.host))
        destination, source = pair if direction == H2D else reversed(pair)
        self.gpu.copy(direction, destination, source, nbytes or self.nbytes)


@DIRECTIONS
@pytest.mark.parametrize("nbytes", [0, 1 << 30], ids=["cut", "grown"])
def test_an_outsider_cannot_change_the_size_of_the_bounce_buffer(
    direction: int, nbytes: int
) -> None:
    """A page that is cut away would end the process that touches it."""
    gpu = Gpu()
    memory = Memory(gpu, os.urandom(MIB))
    number = gpu.driver.bounce_file_descriptor(0, direction)
    outsider = os.open(f"/proc/{os.getpid()}/fd/{number}", os.O_RDWR)
    with pytest.raises(PermissionError):
        os.ftruncate(outsider, nbytes)
    with pytest.raises(PermissionError):
        fcntl.fcntl(outsider, fcntl.F_ADD_SEALS, 8)  # F_SEAL_WRITE: nor who writes
    os.close(outsider)
    memory.copy(direction)


@DIRECTIONS
def test_an_outsider_finds_no_plaintext(direction: int, tmp_path: object) -> None:
    gpu = Gpu()
    content = (b"The quick brown fox jumps over the lazy dog, again and again. " * 40000)[: 2 * MIB]
    Memory(gpu, content).copy(direction)
    bounce = f"/proc/{os.getpid()}/fd/{gpu.driver.bounce_file_descriptor(0, direction)}"
    plaintext = f"{tmp_path}/plaintext"
    with open(plaintext, "wb") as file:
        file.write(content)
    outsider = [sys.executable, "-c", OUTSIDER, plaintext, bounce]
    seen, leaked = map(int, subprocess.check_output(outsider, text=True).split())
    assert seen >= 2 * MIB  # the messages are there,
    assert leaked == 0  # and say nothing


def test_with_confidential_computing_off_there_is_no_bounce_buffer() -> None:
    assert Gpu(confidential=False).driver.bounce_file_descriptor(0, H2D) == -1


class Attack:
    """A tap that keeps the messages that it saw and spoils the `victim`-th."""

    def __init__(self, victim: int, spoil: Spoil) -> None:
        self.victim = victim
        self.spoil = spoil
        self.seen: dict[int, bytes] = {}

    def __call__(self, _direction: int, number: int, message: memoryview) -> None:
        self.seen[number] = bytes(message)
        if number == self.victim:
            self.spoil(message, self.seen)


def flip(message: memoryview, _seen: dict[int, bytes]) -> None:
    message[100] ^= 0x10


def flip_tag(message: memoryview, _seen: dict[int, bytes]) -> None:
    message[TAG] ^= 1


def replay(message: memoryview, seen: dict[int, bytes]) -> None:
    message[:] = seen[2]


def drop(message: memoryview, _seen: dict[int, bytes]) -> None:
    message[:] = bytes(len(message))  # it never arrived: the ring holds what it held before


@DIRECTIONS
@pytest.mark.parametrize("spoil", [flip, flip_tag, replay, drop])
def test_an_attack_on_a_message_ends_the_context(direction: int, spoil: Spoil) -> None:
    gpu = Gpu()
    memory = Memory(gpu, os.urandom(4 * MIB))
    gpu.driver.set_tap(0, Attack(victim=3, spoil=spoil))
    name = "H2D" if direction == H2D else "D2H"
    # A dropped H2D message is noticed at the one that takes its place, under its number.
    with pytest.raises(DriverError, match=f"authentication failed: {name} message 3 ") as error:
        memory.copy(direction)
    assert error.value.status == CONTEXT_LOST
    assert "the context is lost" in str(error.value)
    assert gpu.counted["auth_failures"] == 1
    gpu.driver.set_tap(0, None)
    for direction_again in (H2D, D2H):
        with pytest.raises(DriverError, match="authentication failed"):
            memory.copy(direction_again)
    with pytest.raises(DriverError, match="authentication failed"):
        gpu.synchronize()


def test_two_swapped_h2d_messages_end_the_context() -> None:
    gpu = Gpu()
    ring = gpu.driver.bounce_file_descriptor(0, H2D)

    def swap(_direction: int, number: int, message: memoryview) -> None:
        """Before the engine reads message 1, waits for message 2 and exchanges them."""
        if number != 1:
            return
        with mmap.mmap(os.dup(ring), 0) as shared:
            there = slice(2 * SLOT, 2 * SLOT + len(message))
            while not any(shared[2 * SLOT + MIB : 2 * SLOT + MIB + 16]):
                time.sleep(0.001)
            message[:], shared[there] = shared[there], bytes(message)

    gpu.driver.set_tap(0, swap)
    with pytest.raises(DriverError, match="H2D message 1 "):
        Memory(gpu, os.urandom(2 * MIB)).copy(H2D)


def test_two_swapped_d2h_messages_end_the_context() -> None:
    gpu = Gpu()
    ring = gpu.driver.bounce_file_descriptor(0, D2H)
    first: list[bytes] = []

    def swap(_direction: int, number: int, message: memoryview) -> None:
        if number == 1:
            first.append(bytes(message))
        elif number == 2:
            with mmap.mmap(os.dup(ring), 0) as shared:
                shared[SLOT : SLOT + len(message)] = bytes(message)
            message[:] = first[0]

    gpu.driver.set_tap(0, swap)
    # The host may have opened the first one by then; the second one is refused in any case.
    with pytest.raises(DriverError, match=r"D2H message [12] "):
        Memory(gpu, os.urandom(2 * MIB)).copy(D2H)


@DIRECTIONS
def test_nothing_of_a_forged_message_is_delivered(direction: int) -> None:
    gpu = Gpu()
    memory = Memory(gpu, b"\x55" * 4096)
    target = memory.device if direction == H2D else ctypes.addressof(memory.host)
    ctypes.memset(target, 0xAA, 4096)
    gpu.driver.set_tap(0, Attack(victim=1, spoil=flip))
    with pytest.raises(DriverError, match="authentication failed"):
        memory.copy(direction)
    assert 0x55 not in ctypes.string_at(target, 4096)


@DIRECTIONS
def test_a_used_up_counter_stops_its_direction_before_an_iv_repeats(direction: int) -> None:
    gpu = Gpu()
    memory = Memory(gpu, bytes(3 * MIB))
    gpu.driver.skip_to(0, direction, 2**32 - 1 - 2)  # two numbers are left, for three messages
    for _ in range(2):
        with pytest.raises(DriverError, match="counter is used up") as error:
            memory.copy(direction)
        assert error.value.status == NOT_PERMITTED
    memory.copy(H2D + D2H - direction)  # the context is not lost
    gpu.synchronize()
    assert gpu.counted["auth_failures"] == 0
