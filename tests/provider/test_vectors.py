"""Through EVP, the provider is AES-GCM: NIST's vectors, and another implementation of today."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import cryptography_vectors
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from tests.provider.evp import open_, seal

VECTORS = Path(next(iter(cryptography_vectors.__path__))) / "ciphers" / "AES" / "GCM"
MIB = 1 << 20

bits = pytest.mark.parametrize("bits", [128, 192, 256])


def cases(name: str) -> Iterator[dict[str, bytes]]:
    """NIST's cases: every length of IV, additional data, plaintext and tag that there is."""
    for block in re.split(r"\n\s*\n", (VECTORS / name).read_text()):
        fields = dict(re.findall(r"^(\w+)(?: = ?)?(.*?)$", block, re.MULTILINE))
        if "Key" in fields:
            yield {key: bytes.fromhex(fields[key]) for key in fields if key != "Count"}


@bits
def test_seals_as_nist_says(bits: int) -> None:
    iv_lengths, seen = set(), 0
    for case in cases(f"gcmEncryptExtIV{bits}.rsp"):
        ciphertext, tag = seal(case["Key"], case["IV"], [case["PT"]], [case["AAD"]])
        assert (ciphertext, tag[: len(case["Tag"])]) == (case["CT"], case["Tag"])
        iv_lengths.add(len(case["IV"]))
        seen += 1
    assert seen > 7000
    assert iv_lengths == {1, 12, 128}


@bits
def test_opens_what_nist_opens_and_refuses_what_nist_refuses(bits: int) -> None:
    outcomes = {True: 0, False: 0}
    for case in cases(f"gcmDecrypt{bits}.rsp"):
        plaintext = open_(case["Key"], case["IV"], case["CT"], case["Tag"], case["AAD"])
        assert plaintext == (None if "FAIL" in case else case["PT"])
        outcomes["FAIL" in case] += 1
    assert min(outcomes.values()) > 2000


@bits
@given(data=st.data())
def test_pieces_of_any_size_make_the_same_message(bits: int, data: st.DataObject) -> None:
    pieces = st.lists(st.binary(max_size=70), max_size=6)
    key = data.draw(st.binary(min_size=bits // 8, max_size=bits // 8))
    iv = data.draw(st.binary(min_size=8, max_size=128))
    plaintext, additional = data.draw(pieces), data.draw(pieces)
    ciphertext, tag = seal(key, iv, plaintext, additional)
    whole, associated = b"".join(plaintext), b"".join(additional)
    assert ciphertext + tag == AESGCM(key).encrypt(iv, whole, associated)
    assert open_(key, iv, ciphertext, tag, associated) == whole


@pytest.mark.parametrize("length", [MIB, MIB + 1, 512 * 1024 - 1, 33 * MIB + 17])
@pytest.mark.parametrize("head", [0, 5, 16])
def test_large_messages_come_out_the_same_however_many_threads_help(length: int, head: int) -> None:
    key, iv, plaintext = os.urandom(32), os.urandom(12), os.urandom(length)
    ciphertext, tag = seal(key, iv, [plaintext[:head], plaintext[head:]], [b"header"])
    assert ciphertext + tag == AESGCM(key).encrypt(iv, plaintext, b"header")
    assert open_(key, iv, ciphertext, tag, b"header") == plaintext
    assert open_(key, iv, ciphertext, bytes([tag[0] ^ 1]) + tag[1:], b"header") is None


def test_the_32_bit_block_counter_wraps_within_itself() -> None:
    """The first counter block of a long IV is a hash, so its counter may start anywhere."""
    key, plaintext = os.urandom(32), os.urandom(MIB)
    before_the_wrap = 20_000  # blocks: in the midst of the message
    first = os.urandom(12) + (2**32 - before_the_wrap).to_bytes(4, "big")
    iv = iv_with_first_counter_block(key, first)
    ciphertext, tag = seal(key, iv, [plaintext])
    assert ciphertext + tag == AESGCM(key).encrypt(iv, plaintext, None)


def iv_with_first_counter_block(key: bytes, block: bytes) -> bytes:
    """The 16-byte IV whose GHASH is `block`: GHASH of one block and the lengths, solved for it."""
    inverse = gf_inverse(int.from_bytes(encrypt_block(key, bytes(16)), "big"))
    lengths = 128  # no additional data, 128 bits of IV
    inner = gf_multiply(int.from_bytes(block, "big"), inverse) ^ lengths
    return gf_multiply(inner, inverse).to_bytes(16, "big")


def encrypt_block(key: bytes, block: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)


def gf_multiply(a: int, b: int) -> int:
    """In GCM's field, whose bits are the other way round: the first is the coefficient of 1."""
    product = 0
    for bit in range(127, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (0xE1 << 120 if b & 1 else 0)
    return product


def gf_inverse(a: int) -> int:
    result, power = 1 << 127, a
    for _ in range(127):  # a^(2^128 - 2)
        power = gf_multiply(power, power)
        result = gf_multiply(result, power)
    return result
