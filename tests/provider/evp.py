"""AES-GCM through libcrypto's EVP interface, from the provider alone, as a program calls it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from ctypes import byref, c_char_p, c_int, c_void_p, create_string_buffer
from functools import cache

from pipellm.attach.libcrypto import MODULE

SET_IV_LENGTH, GET_TAG, SET_TAG = 0x9, 0x10, 0x11  # EVP_CTRL_AEAD_*


@cache
def _libcrypto() -> ctypes.CDLL:
    library = ctypes.CDLL("libcrypto.so.3")
    for name in (
        *("EVP_CIPHER_CTX_new", "EVP_CIPHER_fetch", "OSSL_LIB_CTX_new", "OSSL_PROVIDER_load"),
        "EVP_CIPHER_get0_provider",
    ):
        getattr(library, name).restype = c_void_p
    library.OSSL_PROVIDER_get0_name.restype = c_char_p
    return library


@cache
def _cipher(bits: int) -> c_void_p:
    """From a library context of its own, where there is no other provider."""
    libcrypto = _libcrypto()
    context = _context()
    cipher = c_void_p(libcrypto.EVP_CIPHER_fetch(context, f"AES-{bits}-GCM".encode(), None))
    provider = c_void_p(libcrypto.EVP_CIPHER_get0_provider(cipher))
    assert libcrypto.OSSL_PROVIDER_get0_name(provider) == b"pipellm"
    return cipher


@cache
def _context() -> c_void_p:
    libcrypto = _libcrypto()
    context = c_void_p(libcrypto.OSSL_LIB_CTX_new())
    module = ctypes.CDLL(str(MODULE), mode=os.RTLD_LOCAL | os.RTLD_NOW)
    start = ctypes.cast(module.OSSL_provider_init, c_void_p)
    assert libcrypto.OSSL_PROVIDER_add_builtin(context, b"pipellm", start) == 1
    assert libcrypto.OSSL_PROVIDER_load(context, b"pipellm")
    return context


class Message:
    """One message under one key and IV. `additional` and data may come in pieces."""

    def __init__(self, key: bytes, iv: bytes, encrypt: bool) -> None:
        self._libcrypto = _libcrypto()
        self._context = c_void_p(self._libcrypto.EVP_CIPHER_CTX_new())
        cipher = _cipher(8 * len(key))
        self._call("EVP_CipherInit_ex", cipher, None, None, None, c_int(encrypt))
        self._call("EVP_CIPHER_CTX_ctrl", c_int(SET_IV_LENGTH), c_int(len(iv)), None)
        self._call("EVP_CipherInit_ex", None, None, key, iv, c_int(-1))

    def __del__(self) -> None:
        self._libcrypto.EVP_CIPHER_CTX_free(self._context)

    def additional(self, data: bytes) -> None:
        self._call("EVP_CipherUpdate", None, byref(c_int()), data, c_int(len(data)))

    def update(self, data: bytes) -> bytes:
        output, written = create_string_buffer(len(data) or 1), c_int()
        self._call("EVP_CipherUpdate", output, byref(written), data, c_int(len(data)))
        return output.raw[: written.value]

    def tag(self, length: int = 16) -> bytes:
        tag = create_string_buffer(length)
        self._call("EVP_CipherFinal_ex", None, byref(c_int()))
        self._call("EVP_CIPHER_CTX_ctrl", c_int(GET_TAG), c_int(length), tag)
        return tag.raw

    def verify(self, tag: bytes) -> bool:
        self._call("EVP_CIPHER_CTX_ctrl", c_int(SET_TAG), c_int(len(tag)), tag)
        final = self._libcrypto.EVP_CipherFinal_ex(self._context, None, byref(c_int()))
        assert final in (0, 1)
        return bool(final)

    def _call(self, function: str, *arguments: object) -> None:
        assert getattr(self._libcrypto, function)(self._context, *arguments) == 1, function


def seal(
    key: bytes, iv: bytes, plaintext: Iterable[bytes], additional: Iterable[bytes] = ()
) -> tuple[bytes, bytes]:
    """Ciphertext and tag, from pieces."""
    message = Message(key, iv, encrypt=True)
    for piece in additional:
        message.additional(piece)
    return b"".join([message.update(piece) for piece in plaintext]), message.tag()


def open_(
    key: bytes, iv: bytes, ciphertext: bytes, tag: bytes, additional: bytes = b""
) -> bytes | None:
    message = Message(key, iv, encrypt=False)
    message.additional(additional)
    plaintext = message.update(ciphertext)
    return plaintext if message.verify(tag) else None
