"""A forked child does not inherit a key: seen by reading its memory from outside."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pipellm import _native

MASTER = bytes(range(100, 132))

# Seals in both engines, so that the key has been everywhere it ever goes, then forks.
PARENT = """
import os, sys
from pipellm import _native
channels = [_native.SecureChannel(e, bytes.fromhex(sys.argv[1])) for e in _native.engines()]
for channel in channels:
    channel.h2d.seal(channel.h2d.next(), bytes(1 << 20))
ready, told = os.pipe()
child = os.fork()
if child == 0:
    os.write(told, b"x")
    sys.stdin.read()
    os._exit(0)
os.read(ready, 1)
print(child, flush=True)
sys.stdin.read()
"""


def holds(pid: int, secret: bytes) -> bool:
    """Whether the process has `secret` anywhere in memory of its own."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for start, end in re.findall(r"^(\w+)-(\w+) rw-p", maps, re.MULTILINE):
            memory.seek(int(start, 16))
            try:
                content = memory.read(int(end, 16) - int(start, 16))
            except OSError:  # a guard page, or the kernel's own
                continue
            if secret in content:
                return True
    return False


def derived(label: str, length: int) -> bytes:
    return HKDF(SHA256(), length, salt=None, info=label.encode()).derive(MASTER)


@pytest.mark.parametrize(("label", "length"), [("key", 32), ("iv mask", 12)])
def test_a_childs_memory_holds_no_key(label: str, length: int) -> None:
    assert _native.engines()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, MASTER.hex()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    try:
        child = int(parent.stdout.readline())
        secret = derived(f"pipellm h2d {label}", length)
        assert holds(parent.pid, secret)  # the search finds what is there
        assert not holds(child, secret)
    finally:
        parent.communicate("")
