"""Who seals on this machine, how fast, and whether a program would be served by the provider."""

from __future__ import annotations

import ctypes
import os
import tempfile
from ctypes import c_char_p, c_int
from pathlib import Path

from pipellm.attach.libcrypto import program_environment
from pipellm.channel import engines
from pipellm.doctor.machine import Sealing
from pipellm.errors import UserError
from pipellm.own_folder import OwnFolder


def read() -> Sealing:
    return Sealing(
        libcrypto=_libcrypto_version(),
        engines_gbps=engines.measured().gigabytes_per_second,
        provider_problem=_provider_problem(),
    )


def _libcrypto_version() -> str | None:
    """Of the library that NVIDIA's driver would open."""
    try:
        library = ctypes.CDLL("libcrypto.so.3")
    except OSError:
        return None
    library.OpenSSL_version.restype, library.OpenSSL_version.argtypes = c_char_p, (c_int,)
    return bytes(library.OpenSSL_version(0)).decode()


def _provider_problem() -> str | None:
    with tempfile.TemporaryDirectory(prefix="pipellm-") as directory:
        try:
            program_environment(OwnFolder(Path(directory)), os.environ)
        except UserError as error:
            return str(error)
    return None
