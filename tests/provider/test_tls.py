"""TLS, which also uses AES-GCM, does not notice the provider: on either side, or on both."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipellm.attach import libcrypto
from pipellm.own_folder import OwnFolder

PLAIN: Mapping[str, str] = os.environ
SUITES = {
    "tls1_2": ["-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"],
    "tls1_3": ["-ciphersuites", "TLS_AES_256_GCM_SHA384"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a certificate and its key, and a page for the server to serve."""
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    subprocess.run(
        [*command.split(), "-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    (folder / "page").write_bytes(bytes(range(256)) * 4096)  # a mebibyte
    return folder


@pytest.fixture(scope="module")
def attached(folder: Path) -> Mapping[str, str]:
    return libcrypto.program_environment(OwnFolder(folder), os.environ)


@pytest.mark.parametrize("version", SUITES)
@pytest.mark.parametrize("sides", ["server", "client", "both"])
def test_openssls_server_and_client_understand_each_other(
    folder: Path, attached: Mapping[str, str], version: str, sides: str
) -> None:
    serve = "openssl s_server -accept 127.0.0.1:0 -WWW -naccept 1 -cert cert.pem -key key.pem"
    connect = "openssl s_client -quiet -CAfile cert.pem -verify_return_error -connect 127.0.0.1:"
    server = subprocess.Popen(
        [*serve.split(), f"-{version}", *SUITES[version]],
        cwd=folder,
        env=attached if sides != "client" else PLAIN,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert server.stdout is not None
    try:
        while not (port := re.match(rb"ACCEPT .*:(\d+)", server.stdout.readline())):
            assert server.poll() is None, "the server ended"
        maps = Path(f"/proc/{server.pid}/maps").read_text()
        assert ("pipellm_provider.so" in maps) == (sides != "client")
        client = subprocess.run(
            [*(connect + port[1].decode()).split(), f"-{version}", *SUITES[version]],
            cwd=folder,
            env=attached if sides != "server" else PLAIN,
            input=b"GET /page HTTP/1.0\r\n\r\n",
            capture_output=True,
            timeout=30,
        )
    finally:
        server.kill()
        server.communicate()
    assert client.stdout.endswith((folder / "page").read_bytes()), client.stderr.decode()


PYTHON = """
import os, ssl, sys, threading
from contextlib import nullcontext
from pipellm.attach.libcrypto import attach_libcrypto, serving_provider

def context(purpose, version):
    made = ssl.SSLContext(purpose)
    made.minimum_version = made.maximum_version = version
    if version == ssl.TLSVersion.TLSv1_2:
        made.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    return made

class Party:
    def __init__(self, context, **keywords):
        self.read, self.write = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.read, self.write, **keywords)

def pump(*parties):
    for here, there in (parties, parties[::-1]):
        there.read.write(here.write.read())

def step(parties, call):
    while True:
        try:
            return call()
        except ssl.SSLWantReadError:
            pump(*parties)

def talk(version, first):
    # `first` says which of the two sets its keys up while the provider is attached.
    server_context = context(ssl.PROTOCOL_TLS_SERVER, version)
    server_context.load_cert_chain("cert.pem", "key.pem")
    client_context = context(ssl.PROTOCOL_TLS_CLIENT, version)
    client_context.load_verify_locations("cert.pem")
    client = Party(client_context, server_hostname="localhost")
    server = Party(server_context, server_side=True)
    done = set()
    while len(done) < 2:
        for name, party in (("client", client), ("server", server)):
            with attach_libcrypto() if name in first else nullcontext():
                try:
                    party.tls.do_handshake()
                    done.add(name)
                except ssl.SSLWantReadError:
                    pass
        pump(client, server)
    assert "AES" in client.tls.cipher()[0] and "256" in client.tls.cipher()[0], client.tls.cipher()
    for here, there in ((client, server), (server, client)):
        sent, got = os.urandom(300_000), b""
        here.tls.write(sent)
        pump(client, server)
        while len(got) < len(sent):
            got += step((client, server), lambda: there.tls.read(1 << 16))
        assert got == sent

for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    for attached in ("client", "server", "client server"):
        talk(version, attached)
print("ok")
"""


def test_pythons_ssl_understands_itself_with_the_provider_on_either_side(folder: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PYTHON], cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.stdout == "ok\n", result.stderr
