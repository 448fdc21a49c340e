"""The secure channel counts, masks and derives as NVIDIA's does, and notices every attack."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from pipellm import _native

MASTER = bytes(range(32))
DIRECTIONS = ("h2d", "d2h")

direction = pytest.mark.parametrize("direction", DIRECTIONS)


def pair(direction: str) -> tuple[_native.Endpoint, _native.Endpoint]:
    """The sending and the receiving end of one direction."""
    host = _native.SecureChannel("openssl", MASTER)
    device = _native.SecureChannel(_native.engines()[-1], MASTER)
    sender, receiver = (host, device) if direction == "h2d" else (device, host)
    return getattr(sender, direction), getattr(receiver, direction)


def derived(label: str, length: int) -> bytes:
    return HKDF(SHA256(), length, salt=None, info=label.encode()).derive(MASTER)


def send(sender: _native.Endpoint, plaintext: bytes) -> tuple[bytes, bytes]:
    return sender.seal(sender.next(), plaintext)


@direction
def test_keys_and_masks_come_from_hkdf_with_a_label_for_each_direction(direction: str) -> None:
    sender, _ = pair(direction)
    ciphertext, tag = sender.seal(1, b"weights")
    key = derived(f"pipellm {direction} key", 32)
    assert AESGCM(key).decrypt(sender.iv(1), ciphertext + tag, None) == b"weights"


@direction
@given(number=st.integers(min_value=1, max_value=2**32 - 1))
def test_the_iv_is_the_little_endian_counters_under_the_mask(direction: str, number: int) -> None:
    sender, receiver = pair(direction)
    mask = derived(f"pipellm {direction} iv mask", 12)
    unmasked = number.to_bytes(4, "little") + bytes(8)
    expected = bytes(a ^ b for a, b in zip(unmasked, mask, strict=True))
    assert sender.iv(number) == expected
    assert receiver.number_of(expected) == number


@direction
def test_the_counter_is_incremented_before_the_first_message(direction: str) -> None:
    sender, _ = pair(direction)
    assert sender.last == 0
    assert sender.next() == 1
    assert sender.last == 1


def test_the_directions_share_nothing() -> None:
    channel = _native.SecureChannel("openssl", MASTER)
    assert channel.h2d.iv(1) != channel.d2h.iv(1)
    assert channel.h2d.seal(1, bytes(32)) != channel.d2h.seal(1, bytes(32))
    channel.h2d.next()
    assert channel.d2h.last == 0


@direction
def test_an_iv_of_another_channel_belongs_to_no_message(direction: str) -> None:
    _, receiver = pair(direction)
    stranger = getattr(_native.SecureChannel("openssl", bytes(32)), direction)
    assert receiver.number_of(stranger.iv(7)) == 0


@direction
def test_a_counter_that_would_overflow_is_an_error_for_good(direction: str) -> None:
    sender, _ = pair(direction)
    sender.skip_to(2**32 - 2)
    assert sender.next() == 2**32 - 1
    for _ in range(2):
        with pytest.raises(_native.CounterExhausted, match="counter is used up"):
            sender.next()


@direction
@given(messages=st.lists(st.binary(max_size=64), max_size=20))
def test_messages_in_order_arrive(direction: str, messages: list[bytes]) -> None:
    sender, receiver = pair(direction)
    for message in messages:
        ciphertext, tag = send(sender, message)
        assert receiver.open(receiver.next(), ciphertext, tag) == message


@direction
def test_a_replayed_message_is_refused(direction: str) -> None:
    sender, receiver = pair(direction)
    first = send(sender, b"once")
    assert receiver.open(receiver.next(), *first) == b"once"
    assert receiver.open(receiver.next(), *first) is None


@direction
def test_a_dropped_message_makes_the_next_one_fail(direction: str) -> None:
    sender, receiver = pair(direction)
    send(sender, b"never arrives")
    second = send(sender, b"arrives first")
    assert receiver.open(receiver.next(), *second) is None


@direction
def test_swapped_messages_are_refused(direction: str) -> None:
    sender, receiver = pair(direction)
    first, second = send(sender, b"first"), send(sender, b"other")
    number = receiver.next()
    assert receiver.open(number, *second) is None
    assert receiver.open(number, *first) == b"first"


@direction
def test_a_message_cannot_be_reflected_to_its_sender(direction: str) -> None:
    channel = _native.SecureChannel("openssl", MASTER)
    there, back = (channel.h2d, channel.d2h) if direction == "h2d" else (channel.d2h, channel.h2d)
    ciphertext, tag = there.seal(1, b"mirror")
    assert back.open(1, ciphertext, tag) is None
