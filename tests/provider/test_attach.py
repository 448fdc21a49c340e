"""Programs, as they are, seal through the provider; and never through another one unnoticed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pipellm import UserError, _native
from pipellm.attach import libcrypto
from pipellm.own_folder import OwnFolder

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]


def run(
    *command: str | Path, environment: Mapping[str, str] = os.environ, check: bool = True
) -> str:
    result = subprocess.run(
        command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if check:
        assert result.returncode == 0, result.stderr
        return result.stdout
    return result.stdout + result.stderr


def python(source: str, environment: Mapping[str, str] = os.environ) -> str:
    return run(sys.executable, "-c", source, environment=environment)


@pytest.fixture
def attached(tmp_path: Path) -> dict[str, str]:
    """The environment of a program that was started with the provider under it."""
    return libcrypto.program_environment(OwnFolder(tmp_path), os.environ)


def test_a_native_program_that_opens_libcrypto_for_itself_is_served(
    tmp_path: Path, attached: dict[str, str]
) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler
    program = tmp_path / "dlopened"
    run(compiler, "-Wall", "-o", program, HERE / "dlopened.c", "-ldl")
    before, served = run(program).split(), run(program, environment=attached).split()
    assert before[0] == "default"
    assert served[0] == "pipellm"
    assert before[1] == served[1]
    data = bytes(1 << 20)
    for message in (1, 2, 3):
        sealed = AESGCM(bytes(32)).encrypt(bytes([message]) + bytes(11), data, None)
        data = sealed[:-16]
    assert served[1] == sealed[-32:].hex()


ATTACH = "from pipellm.attach.libcrypto import *; a = attach_libcrypto(); s = serving_provider\n"


def test_a_python_program_attaches_and_undoes_as_often_as_it_likes() -> None:
    said = python(
        "import ssl\n" + ATTACH + "print(*map(s, CIPHERS))\n"
        "a.undo(); a.undo(); print(*map(s, CIPHERS))\n"
        "with attach_libcrypto(): print(s('AES-256-GCM'), s('AES-256-CTR'))\n"
        "print(s('AES-256-GCM'))"
    )
    assert said.splitlines() == [
        "pipellm pipellm pipellm", "default default default", "pipellm default", "default",
    ]  # fmt: skip


def test_a_cipher_that_is_in_use_outlives_the_attachment() -> None:
    source = """
from pipellm import _native
aead = _native.Aead.create("openssl", bytes(32))
first = aead.seal(bytes(12), b"hello")
a.undo()
assert aead.seal(bytes(12), b"hello") == first
assert aead.open(bytes(12), *first) == b"hello"
"""
    python(ATTACH + source)


def test_other_copies_of_openssl_in_the_process_are_left_alone() -> None:
    said = python(
        ATTACH + "from cryptography.hazmat.primitives.ciphers.aead import AESGCM\n"
        "print(AESGCM(bytes(32)).encrypt(bytes(12), b'hello', b'more').hex())\n"
    )
    assert said.strip() == AESGCM(bytes(32)).encrypt(bytes(12), b"hello", b"more").hex()


def test_another_openssl_that_reads_the_configuration_is_served_as_well(
    attached: dict[str, str],
) -> None:
    """The one inside the `cryptography` wheel: another version, linked statically."""
    source = """
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.exceptions import InvalidTag
aead = AESGCM(bytes(32))
sealed = aead.encrypt(bytes(12), bytes(1 << 20), b"more")
assert aead.decrypt(bytes(12), sealed, b"more") == bytes(1 << 20)
try:
    aead.decrypt(bytes(12), sealed, b"less")
except InvalidTag:
    print("refused", "pipellm_provider" in open("/proc/self/maps").read(), sealed[-16:].hex())
"""
    expected = AESGCM(bytes(32)).encrypt(bytes(12), bytes(1 << 20), b"more")[-16:].hex()
    assert python(source, attached).split() == ["refused", "True", expected]


def test_the_emulated_channel_puts_the_same_bytes_on_the_link() -> None:
    source = """
import hashlib
from pipellm import _native
channel = _native.SecureChannel("openssl", bytes(range(32)))
for direction in (channel.h2d, channel.d2h):
    for nbytes in (1, 16, 4097, 1 << 20):
        sealed = direction.seal(direction.next(), bytes(nbytes))
        print(hashlib.sha256(repr(sealed).encode()).hexdigest())
"""
    assert "openssl" in _native.engines()
    assert python(ATTACH + source) == python(source)


def test_the_emulated_driver_runs_on_the_provider() -> None:
    source = """
import os
from ctypes import addressof, c_char
from tests.native.gpu import Gpu
from pipellm.bench.driver_table import H2D, D2H
gpu = Gpu()
sent = bytearray(os.urandom(3 << 20))
back = bytearray(len(sent))
address = lambda array: addressof((c_char * len(array)).from_buffer(array))
device = gpu.malloc(len(sent))
gpu.copy(H2D, device, address(sent), len(sent))
gpu.copy(D2H, address(back), device, len(sent))
gpu.synchronize()
assert back == sent
print(s("AES-256-GCM"))
"""
    assert python(ATTACH + source) == "pipellm\n"


POLICY = "[start]\nssl_conf = tls\n[tls]\nsystem_default = d\n[d]\nMaxProtocol = TLSv1.2\n"


@pytest.mark.parametrize("theirs", ["", POLICY])
def test_the_users_own_configuration_stays_in_force(tmp_path: Path, theirs: str) -> None:
    before = tmp_path / "users.cnf"
    before.write_text("openssl_conf = start\n" + theirs)
    source = "import ssl; print(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).maximum_version.name)"
    environment = {**os.environ, "OPENSSL_CONF": str(before)}
    ours = libcrypto.program_environment(OwnFolder(tmp_path), environment)
    assert python(source, ours) == python(source, environment)
    assert ("TLSv1_2" in python(source, ours)) == bool(theirs)
    assert ours["OPENSSL_CONF"] != str(before)


def test_the_users_own_providers_stay_active(tmp_path: Path) -> None:
    before = tmp_path / "users.cnf"
    before.write_text(
        "openssl_conf = start\n[start]\nproviders = p\nalg_section = a\n"
        "[a]\ndefault_properties = ?colour=blue\n"
        "[p]\nlegacy = l\ndefault = d\n[l]\nactivate = 1\n[d]\nactivate = 1\n"
    )
    environment = {**os.environ, "OPENSSL_CONF": str(before)}
    ours = libcrypto.program_environment(OwnFolder(tmp_path), environment)
    listed = run("openssl", "list", "-providers", environment=ours)
    assert re.findall(r"^  (\w+)$", listed, re.MULTILINE) == ["default", "legacy", "pipellm"]
    assert (
        "default_properties = ?colour=blue,?provider=pipellm"
        in Path(ours["OPENSSL_CONF"]).read_text()
    )


def test_a_configuration_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "OPENSSL_CONF": str(tmp_path / "missing.cnf")}
    ours = libcrypto.program_environment(OwnFolder(tmp_path), environment)
    listed = run("openssl", "list", "-providers", environment=ours)
    assert re.findall(r"^  (\w+)$", listed, re.MULTILINE) == ["default", "pipellm"]


def test_a_provider_that_cannot_be_loaded_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "pipellm_provider.so"
    monkeypatch.setattr(libcrypto, "MODULE", broken)
    with pytest.raises(UserError, match=r"provider .* is missing; install PipeLLM again"):
        libcrypto.program_environment(OwnFolder(tmp_path), os.environ)
    broken.write_text("no library")
    with pytest.raises(UserError, match=r"does not take AES-GCM from .*; install PipeLLM again"):
        libcrypto.program_environment(OwnFolder(tmp_path), os.environ)


def test_a_broken_provider_is_an_error_in_process_too(tmp_path: Path) -> None:
    broken = tmp_path / "pipellm_provider.so"
    broken.write_text("no library")
    source = (
        "from pathlib import Path\nfrom pipellm import UserError\n"
        "from pipellm.attach import libcrypto\n"
        f"libcrypto.MODULE = Path({str(broken)!r})\n"
        "try: libcrypto.attach_libcrypto()\n"
        "except UserError as error: print(error)\n"
        "print(libcrypto.serving_provider('AES-256-GCM'))"
    )
    said, serving = python(source).splitlines()
    assert re.fullmatch(
        r"the OpenSSL provider cannot be loaded \(.*\); install PipeLLM again .*", said
    )
    assert serving == "default"


def test_fips_mode_is_not_overridden() -> None:
    source = (
        "import ctypes\nfrom pipellm import UserError\nfrom pipellm.attach.libcrypto import *\n"
        "ctypes.CDLL('libcrypto.so.3').EVP_default_properties_enable_fips(None, 1)\n"
        "try: attach_libcrypto()\n"
        "except UserError as error: print(error)\n"
    )
    assert python(source).startswith("libcrypto.so.3 is in FIPS mode")


def test_a_forked_child_goes_on_with_what_it_inherited() -> None:
    source = """
import os
from tests.provider.evp import Message
message = Message(bytes(32), bytes(12), encrypt=True)
start = message.update(bytes(100))
child = os.fork()
rest = message.update(bytes(2 << 20)), message.tag()
if child == 0:
    # Both ends of the fork finish the message, each with threads of its own.
    whole = Message(bytes(32), bytes(12), encrypt=True)
    assert whole.update(bytes(100 + (2 << 20))) == start + rest[0]
    assert whole.tag() == rest[1]
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    python(source)


def test_the_provider_counts_what_it_was_asked_for() -> None:
    source = """
aead = _native.Aead.create("openssl", bytes(32))
sealed = aead.seal(bytes(12), bytes(5 << 20))
aead.open(bytes(12), *sealed)
aead.seal(bytes(12), bytes(4095))  # too small to be counted
print(served().nbytes >> 20)
a.undo()
try: served()
except UserError as error: print(error)
"""
    counted, after = python(
        ATTACH + "from pipellm import UserError, _native\n" + source
    ).splitlines()
    assert counted == "10"
    assert after == "libcrypto.so.3 has no provider 'pipellm' here; attach it first"
