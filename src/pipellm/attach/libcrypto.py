"""Getting under a program that seals through libcrypto: the OpenSSL provider `pipellm`.

libcrypto asks its providers for AES-GCM, and can be told to ask `pipellm` first. There are two ways
to tell it, and both fail silently if the provider cannot be loaded: libcrypto then goes on with its
own. So both are checked here.

`attach_libcrypto` tells the libcrypto.so.3 of this process, and no other copy of OpenSSL that some
package may have brought along. `program_environment` writes an OpenSSL configuration for programs
that are yet to start; it reaches every OpenSSL in them.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ctypes import addressof, c_char_p, c_int, c_size_t, c_uint64, c_void_p, sizeof
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType

from pipellm import _native
from pipellm.attach import openssl_configuration
from pipellm.errors import UserError
from pipellm.own_folder import OwnFolder

PROVIDER = "pipellm"
MODULE = Path(_native.__file__).with_name("pipellm_provider.so")
CIPHERS = ("AES-128-GCM", "AES-192-GCM", "AES-256-GCM")

_PROPERTIES = f"?provider={PROVIDER}"
"""Preferred, not required: what the provider does not have comes from the others."""

_SONAME = "libcrypto.so.3"
_REINSTALL = "install PipeLLM again (`make setup` in a checkout)"


class _Parameter(ctypes.Structure):
    """OSSL_PARAM; an array of them ends with one that is all zero."""

    _fields_ = (
        ("key", c_char_p),
        ("data_type", ctypes.c_uint),
        ("data", c_void_p),
        ("data_size", c_size_t),
        ("return_size", c_size_t),
    )


_UNSIGNED_INTEGER = 2
"""OSSL_PARAM_UNSIGNED_INTEGER."""

_SERVED = ("updates", "bytes")
"""The provider's counters, in the order of Served."""


class Attachment:
    """The provider in this process's libcrypto.so.3, until `undo`."""

    def __init__(self, provider: int) -> None:
        self._provider: int | None = provider

    def undo(self) -> None:
        """Gives AES-GCM back to the providers that had it. Ciphers in use stay usable.

        A second call does nothing.
        """
        if self._provider is None:
            return
        _libcrypto().EVP_set_default_properties(None, None)
        _libcrypto().OSSL_PROVIDER_unload(self._provider)
        self._provider = None

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.undo()


def attach_libcrypto() -> Attachment:
    """Has this process's libcrypto.so.3 seal and open through PipeLLM from now on.

    Ciphers that are already in use keep what they have, so call it before CUDA is first used.
    Raises UserError if there is no such libcrypto, or if it goes on with another provider; nothing
    has changed then.
    """
    with _no_errors_left_behind():
        return _attach(_libcrypto())


def _attach(libcrypto: ctypes.CDLL) -> Attachment:
    if libcrypto.EVP_default_properties_is_fips_enabled(None):
        raise UserError(
            f"{_SONAME} is in FIPS mode, where it takes AES-GCM from its FIPS provider only; turn "
            "that off in the OpenSSL configuration to attach PipeLLM"
        )
    _register()
    # "try" with 1: otherwise the provider `default`, which is there by itself only as long as
    # nothing else was loaded, would no longer be.
    provider = libcrypto.OSSL_PROVIDER_try_load(None, PROVIDER.encode(), 1)
    if not provider:
        raise UserError(f"{_SONAME} cannot load {MODULE}: {_last_error()}")
    attachment = Attachment(provider)
    libcrypto.EVP_set_default_properties(None, _PROPERTIES.encode())
    serving = {serving_provider(cipher) for cipher in CIPHERS}
    if serving != {PROVIDER}:
        attachment.undo()
        others = ", ".join(sorted(serving - {PROVIDER}))
        raise UserError(f"{_SONAME} takes AES-GCM not from PipeLLM but from {others}; {_REINSTALL}")
    return attachment


def serving_provider(cipher: str) -> str:
    """The name of the provider from which this process's libcrypto.so.3 takes `cipher` now."""
    libcrypto = _libcrypto()
    with _no_errors_left_behind():
        fetched = libcrypto.EVP_CIPHER_fetch(None, cipher.encode(), None)
        if not fetched:
            return "none"
        name = libcrypto.OSSL_PROVIDER_get0_name(libcrypto.EVP_CIPHER_get0_provider(fetched))
        libcrypto.EVP_CIPHER_free(fetched)
        return bytes(name).decode()


@dataclass(frozen=True, slots=True)
class Served:
    """What the provider has sealed and opened in this process, in updates of 4 KiB or more."""

    updates: int
    nbytes: int


def served() -> Served:
    """The provider's own count. Raises UserError where it is not attached to libcrypto.so.3."""
    libcrypto = _libcrypto()
    with _no_errors_left_behind():
        if not libcrypto.OSSL_PROVIDER_available(None, PROVIDER.encode()):
            raise UserError(f"{_SONAME} has no provider {PROVIDER!r} here; attach it first")
        provider = libcrypto.OSSL_PROVIDER_try_load(None, PROVIDER.encode(), 1)
        names = tuple(f"pipellm-served-{what}".encode() for what in _SERVED)
        values = tuple(c_uint64() for _ in names)
        asked = (_Parameter * (len(names) + 1))(
            *(
                _Parameter(name, _UNSIGNED_INTEGER, addressof(value), sizeof(value), 0)
                for name, value in zip(names, values, strict=True)
            )
        )
        answered = libcrypto.OSSL_PROVIDER_get_params(provider, asked)
        libcrypto.OSSL_PROVIDER_unload(provider)
        if not answered:
            raise UserError(f"the provider does not say what it served; {_REINSTALL}")
        return Served(*(value.value for value in values))


def program_environment(folder: OwnFolder, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment under which a program's libcrypto takes AES-GCM from PipeLLM.

    Keeps an OpenSSL configuration in `folder`, under a name that has the SHA-256 of what it says.
    It stays there: processes of the program may outlive the run. What the user's own configuration
    says remains in force. Raises UserError if a program started so is not served.
    """
    _require_module()
    libcrypto = _libcrypto()
    before = inherited.get("OPENSSL_CONF") or openssl_configuration.default_path(libcrypto)
    with _no_errors_left_behind():
        text = openssl_configuration.with_provider(
            libcrypto, Path(before), PROVIDER, MODULE, _PROPERTIES
        ).encode()
    path = folder.file(f"openssl-{hashlib.sha256(text).hexdigest()}.cnf", text)
    environment = {**inherited, "OPENSSL_CONF": str(path)}
    _check(environment)
    return environment


_PROBE = f"""
import ctypes
libcrypto = ctypes.CDLL({_SONAME!r})
for name in ("EVP_CIPHER_fetch", "EVP_CIPHER_get0_provider"):
    getattr(libcrypto, name).restype = ctypes.c_void_p
libcrypto.OSSL_PROVIDER_get0_name.restype = ctypes.c_char_p
cipher = libcrypto.EVP_CIPHER_fetch(None, b"AES-256-GCM", None)
provider = libcrypto.EVP_CIPHER_get0_provider(ctypes.c_void_p(cipher))
print(libcrypto.OSSL_PROVIDER_get0_name(ctypes.c_void_p(provider)).decode())
"""


def _check(environment: Mapping[str, str]) -> None:
    probe = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _PROBE],
        # It is none of the program's processes.
        env={k: v for k, v in environment.items() if k != "PIPELLM_STATS_DIR"},
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.stdout.strip() != PROVIDER:
        said = probe.stdout.strip() or probe.stderr.strip().splitlines()[-1:]
        raise UserError(
            f"a program started with OPENSSL_CONF={environment['OPENSSL_CONF']} does not take "
            f"AES-GCM from {MODULE} (but from: {said}); {_REINSTALL}"
        )


def _require_module() -> None:
    if not MODULE.exists():
        raise UserError(f"the OpenSSL provider {MODULE} is missing; {_REINSTALL}")


@cache
def _register() -> None:
    """Makes the provider known to libcrypto by its name: no search path is changed for others."""
    _require_module()
    try:
        module = ctypes.CDLL(str(MODULE), mode=os.RTLD_LOCAL | os.RTLD_NOW)
    except OSError as error:
        raise UserError(f"the OpenSSL provider cannot be loaded ({error}); {_REINSTALL}") from None
    start = ctypes.cast(module.OSSL_provider_init, c_void_p)
    if not _libcrypto().OSSL_PROVIDER_add_builtin(None, PROVIDER.encode(), start):
        raise UserError(f"{_SONAME} refuses a provider named {PROVIDER!r}: {_last_error()}")


@cache
def _libcrypto() -> ctypes.CDLL:
    """The process's libcrypto.so.3, loaded now if nothing has loaded it yet."""
    try:
        library = ctypes.CDLL(_SONAME)
    except OSError as error:
        raise UserError(f"no OpenSSL 3 here to attach to ({error}); install libssl3") from None
    for name, result, arguments in (
        ("CONF_get1_default_config_file", c_void_p, ()),
        ("ERR_error_string", c_char_p, (ctypes.c_ulong, c_char_p)),
        ("ERR_peek_last_error", ctypes.c_ulong, ()),
        ("ERR_pop_to_mark", c_int, ()),
        ("ERR_set_mark", c_int, ()),
        ("EVP_CIPHER_fetch", c_void_p, (c_void_p, c_char_p, c_char_p)),
        ("EVP_CIPHER_free", None, (c_void_p,)),
        ("EVP_CIPHER_get0_provider", c_void_p, (c_void_p,)),
        ("EVP_default_properties_is_fips_enabled", c_int, (c_void_p,)),
        ("EVP_set_default_properties", c_int, (c_void_p, c_char_p)),
        ("NCONF_free", None, (c_void_p,)),
        ("NCONF_get_section", c_void_p, (c_void_p, c_char_p)),
        ("NCONF_get_string", c_char_p, (c_void_p, c_char_p, c_char_p)),
        ("NCONF_load", c_int, (c_void_p, c_char_p, c_void_p)),
        ("NCONF_new", c_void_p, (c_void_p,)),
        ("OPENSSL_sk_num", c_int, (c_void_p,)),
        ("OPENSSL_sk_value", c_void_p, (c_void_p, c_int)),
        ("OSSL_PROVIDER_add_builtin", c_int, (c_void_p, c_char_p, c_void_p)),
        ("OSSL_PROVIDER_available", c_int, (c_void_p, c_char_p)),
        ("OSSL_PROVIDER_get0_name", c_char_p, (c_void_p,)),
        ("OSSL_PROVIDER_get_params", c_int, (c_void_p, c_void_p)),
        ("OSSL_PROVIDER_try_load", c_void_p, (c_void_p, c_char_p, c_int)),
        ("OSSL_PROVIDER_unload", c_int, (c_void_p,)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@contextmanager
def _no_errors_left_behind() -> Iterator[None]:
    """What fails inside is not left on the thread's error queue, for the program to find."""
    _libcrypto().ERR_set_mark()
    try:
        yield
    finally:
        _libcrypto().ERR_pop_to_mark()


def _last_error() -> str:
    libcrypto = _libcrypto()
    return bytes(libcrypto.ERR_error_string(libcrypto.ERR_peek_last_error(), None)).decode()
