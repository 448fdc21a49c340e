"""Every engine is AES-256-GCM, to the letter of NIST's vectors and at every awkward length."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import cryptography_vectors
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from pipellm import _native

MIB = 1 << 20
ENGINES = _native.engines()
VECTORS = Path(next(iter(cryptography_vectors.__path__))) / "ciphers" / "AES" / "GCM"

engine = pytest.mark.parametrize("engine", ENGINES)


def nist_vectors(name: str) -> Iterator[dict[str, bytes]]:
    """The cases of one of NIST's files that the channel's cipher covers.

    That is a 96-bit IV, a 128-bit tag and no additional data. A case that must be refused has
    "FAIL".
    """
    group: dict[str, str] = {}
    for block in re.split(r"\n\s*\n", (VECTORS / name).read_text()):
        lines = [line.strip() for line in block.splitlines() if not line.startswith("#")]
        # "Key = 5fe0", "[IVlen = 96]", or the word "FAIL" alone.
        fields = dict(re.findall(r"^\[?(\w+)(?: = ?)?(.*?)\]?$", "\n".join(lines), re.MULTILINE))
        if lines and lines[0].startswith("["):
            group = fields
        elif fields and (group["IVlen"], group["AADlen"], group["Taglen"]) == ("96", "0", "128"):
            yield {key: bytes.fromhex(fields[key]) for key in fields if key != "Count"}


@engine
def test_seals_as_nist_says(engine: str) -> None:
    seen = 0
    for case in nist_vectors("gcmEncryptExtIV256.rsp"):
        aead = _native.Aead.create(engine, case["Key"])
        assert aead.seal(case["IV"], case["PT"]) == (case["CT"], case["Tag"])
        seen += 1
    assert seen == 75


@engine
def test_opens_what_nist_opens_and_refuses_what_nist_refuses(engine: str) -> None:
    opened = refused = 0
    for case in nist_vectors("gcmDecrypt256.rsp"):
        plaintext = _native.Aead.create(engine, case["Key"]).open(
            case["IV"], case["CT"], case["Tag"]
        )
        if "FAIL" in case:
            assert plaintext is None
            refused += 1
        else:
            assert plaintext == case["PT"]
            opened += 1
    assert opened > 30
    assert refused > 30


@engine
@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 31, 255, 4096, MIB - 1, MIB, MIB + 1])
def test_agrees_with_another_implementation_at_awkward_lengths(engine: str, length: int) -> None:
    key, iv, plaintext = os.urandom(32), os.urandom(12), os.urandom(length)
    aead = _native.Aead.create(engine, key)
    ciphertext, tag = aead.seal(iv, plaintext)
    assert ciphertext + tag == AESGCM(key).encrypt(iv, plaintext, None)
    assert aead.open(iv, ciphertext, tag) == plaintext


@engine
@given(key=st.binary(min_size=32, max_size=32), data=st.data())
def test_one_key_seals_and_opens_many_messages_in_any_order(
    engine: str, key: bytes, data: st.DataObject
) -> None:
    aead = _native.Aead.create(engine, key)
    reference = AESGCM(key)
    messages = data.draw(
        st.lists(st.tuples(st.binary(min_size=12, max_size=12), st.binary(max_size=200)))
    )
    for iv, plaintext in messages:
        ciphertext, tag = aead.seal(iv, plaintext)
        assert ciphertext + tag == reference.encrypt(iv, plaintext, None)
        if data.draw(st.booleans()):
            assert aead.open(iv, ciphertext, tag) == plaintext


@engine
@given(
    plaintext=st.binary(min_size=1, max_size=100),
    position=st.integers(min_value=0),
    bit=st.integers(min_value=0, max_value=7),
    part=st.sampled_from(["iv", "ciphertext", "tag"]),
)
def test_refuses_a_flipped_bit_anywhere(
    engine: str, plaintext: bytes, position: int, bit: int, part: str
) -> None:
    aead = _native.Aead.create(engine, bytes(range(32)))
    ciphertext, tag = aead.seal(bytes(12), plaintext)
    message = {"iv": bytearray(12), "ciphertext": bytearray(ciphertext), "tag": bytearray(tag)}
    message[part][position % len(message[part])] ^= 1 << bit
    assert aead.open(*(bytes(message[name]) for name in ("iv", "ciphertext", "tag"))) is None


def test_a_key_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a key must be 32 bytes long"):
        _native.Aead.create("openssl", b"short")


def test_an_engine_that_is_not_built_in_is_refused() -> None:
    with pytest.raises(ValueError, match="no engine named 'rot13'"):
        _native.Aead.create("rot13", bytes(32))


def test_openssl_is_always_there() -> None:
    assert "openssl" in ENGINES
