"""Between messages a key lies in pages that are kept out of core dumps and of forked children."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipellm import _native

# Looks for what AES derives from the key first (FIPS 197, section 5.2), which no caller has. It is
# computed backwards, so that what is looked for lies nowhere whole but in key schedules.
PROGRAM = """
import os, sys
from pipellm import _native

def times(a, b):
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product

def substitute(byte):
    inverse = 1
    for _ in range(254):
        inverse = times(inverse, byte)
    turned = [inverse << n | inverse >> (8 - n) for n in range(5)]
    return (turned[0] ^ turned[1] ^ turned[2] ^ turned[3] ^ turned[4] ^ 0x63) & 0xFF

def derived(key):
    words = [list(key[i : i + 4]) for i in range(0, 32, 4)]
    last = words[7][1:] + words[7][:1]
    first = [word ^ substitute(byte) for word, byte in zip(words[0], last)]
    first[0] ^= 1
    out = [first]
    for word in words[1:4]:
        out.append([a ^ b for a, b in zip(out[-1], word)])
    return [byte for word in out for byte in word]

key = os.urandom(32)
backwards = bytes(reversed(derived(key)))
aead = _native.Aead.create(sys.argv[1], key)
for number in range(3):
    iv = bytes([number]) * 12
    assert aead.open(iv, *aead.seal(iv, bytes(100_000))) == bytes(100_000)

found = []
memory = open("/proc/self/mem", "rb", buffering=0)
for line in open("/proc/self/smaps").read().split("\\n"):
    fields = line.split()
    if fields and "-" in fields[0] and not fields[0].endswith(":"):
        start, end = (int(part, 16) for part in fields[0].split("-"))
        readable, name = "r" in fields[1], fields[-1]
    elif fields and fields[0] == "VmFlags:" and readable and not name.startswith("[v"):
        memory.seek(start)
        content = memory.read(end - start)[::-1]
        if content.find(backwards) >= 0 and content[content.find(backwards) :][:16] == backwards:
            found.append({"dd", "wf"} <= set(fields))
        del content
print(len(found), all(found))
"""


@pytest.mark.parametrize("engine", _native.engines())
def test_a_key_schedule_lies_in_secret_pages_or_nowhere(engine: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, engine],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    expected = "0 True" if engine == "openssl" else "1 True"
    assert result.stdout.strip() == expected
