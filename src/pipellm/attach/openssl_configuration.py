"""An OpenSSL configuration that adds one provider to the one a program would have read.

The user's file is included whole; only its sections for providers and for algorithms are written
anew, with what they had. libcrypto reads the file for us: its syntax has variables, quotes and
includes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import c_char_p, c_void_p
from pathlib import Path


class _Value(ctypes.Structure):
    _fields_ = (("section", c_char_p), ("name", c_char_p), ("value", c_char_p))


def default_path(libcrypto: ctypes.CDLL) -> str:
    """Where libcrypto looks for its configuration if OPENSSL_CONF is not set.

    (If it is set in this process, that is the answer.)
    """
    text = libcrypto.CONF_get1_default_config_file()
    return ctypes.string_at(text).decode()  # ours to free; a few bytes, once


def with_provider(
    libcrypto: ctypes.CDLL, before: Path, provider: str, module: Path, properties: str
) -> str:
    """The text of a configuration: all that `before` says, and `provider` from the file `module`.

    `properties` goes before what `before` has for default properties. A file that is not there says
    nothing, as for libcrypto.
    """
    conf = libcrypto.NCONF_new(None)
    try:
        there = libcrypto.NCONF_load(conf, str(before).encode(), None) > 0
        old = _Old(libcrypto, conf, before if there else None)
        return _text(old, provider, module, properties)
    finally:
        libcrypto.NCONF_free(conf)


class _Old:
    """What the user's configuration says, by section."""

    def __init__(self, libcrypto: ctypes.CDLL, conf: int, path: Path | None) -> None:
        self._libcrypto, self._conf, self.path = libcrypto, conf, path

    def get(self, section: str | None, name: str) -> str | None:
        if self.path is None or section is None:
            return None
        found = self._libcrypto.NCONF_get_string(self._conf, section.encode(), name.encode())
        return None if found is None else bytes(found).decode()

    def names(self, section: str | None) -> Iterator[str]:
        if self.path is None or section is None:
            return
        stack = self._libcrypto.NCONF_get_section(self._conf, section.encode())
        for i in range(max(self._libcrypto.OPENSSL_sk_num(stack), 0)):
            address = self._libcrypto.OPENSSL_sk_value(c_void_p(stack), i)
            yield bytes(_Value.from_address(address).name).decode()


def _text(old: _Old, provider: str, module: Path, properties: str) -> str:
    start = old.get("default", "openssl_conf")
    providers, algorithms = old.get(start, "providers"), old.get(start, "alg_section")
    listed = {name: old.get(providers, name) for name in old.names(providers)}
    # libcrypto activates `default` by itself only where no other provider is activated.
    activated = any(old.get(section, "activate") is not None for section in listed.values())
    kept = properties
    if (theirs := old.get(algorithms, "default_properties")) is not None:
        kept = f"{theirs},{properties}"
    lines = [
        "# Written by PipeLLM, for programs that it is attached to.",
        *([] if old.path is None else [f".include {old.path.absolute()}"]),
        "[default]",
        "openssl_conf = pipellm_start",
        "[pipellm_start]",
        *_copied(old, start, except_for={"providers", "alg_section"}),
        "providers = pipellm_providers",
        "alg_section = pipellm_algorithms",
        "[pipellm_algorithms]",
        *_copied(old, algorithms, except_for={"default_properties"}),
        f"default_properties = {kept}",
        "[pipellm_providers]",
        *_copied(old, providers, except_for={provider} if activated else {provider, "default"}),
        *([] if activated else ["default = pipellm_default"]),
        f"{provider} = pipellm_provider",
        *([] if activated else ["[pipellm_default]", "activate = 1"]),
        "[pipellm_provider]",
        f"module = {module}",
        "activate = 1",
    ]
    return "\n".join(lines) + "\n"


def _copied(old: _Old, section: str | None, except_for: set[str]) -> list[str]:
    """The lines of a section, by reference to it: no value has to be quoted."""
    return [
        f"{name} = ${{{section}::{name}}}" for name in old.names(section) if name not in except_for
    ]
