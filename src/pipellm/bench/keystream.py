"""What keystream made ahead gains: IVs that can be foreseen beside IVs that cannot.

python -m pipellm.bench.keystream [MODULE]

The provider makes keystream ahead for messages that are numbered as NVIDIA's driver numbers them,
and for those only; so the same messages with random IVs show how fast it is without. MODULE is
another build of the provider, such as one that always makes it (docs/provider.md).
"""

from __future__ import annotations

import ctypes
import os
import statistics
import sys
import time
from ctypes import byref, c_int, c_void_p, create_string_buffer

from rich.console import Console
from rich.table import Table

from pipellm.attach.libcrypto import MODULE
from pipellm.bench.spread import Spread

_NBYTES = 1 << 20
"""What the driver seals at once."""
_PLACES = 8
"""Messages lie one after the other in so many places: a copy's bytes come from no cache."""
_GAP_SECONDS = 0.001
_WARM, _MESSAGES, _ROUNDS = 32, 300, 7
_GET_TAG = 0x10  # EVP_CTRL_AEAD_GET_TAG
_TAG_BYTES = 16


class Sealer:
    """Messages through EVP, from one build of the provider."""

    def __init__(self, module: str) -> None:
        self._libcrypto = libcrypto = ctypes.CDLL("libcrypto.so.3")
        for name in ("EVP_CIPHER_CTX_new", "EVP_CIPHER_fetch", "OSSL_LIB_CTX_new"):
            getattr(libcrypto, name).restype = c_void_p
        context = c_void_p(libcrypto.OSSL_LIB_CTX_new())
        start = ctypes.cast(ctypes.CDLL(module).OSSL_provider_init, c_void_p)
        libcrypto.OSSL_PROVIDER_add_builtin(context, b"pipellm", start)
        libcrypto.OSSL_PROVIDER_load.restype = c_void_p
        libcrypto.OSSL_PROVIDER_load(context, b"pipellm")
        self._cipher = c_void_p(libcrypto.EVP_CIPHER_fetch(context, b"AES-256-GCM", None))
        self._plaintext = create_string_buffer(os.urandom(_NBYTES) * _PLACES, _NBYTES * _PLACES)
        self._ciphertext = create_string_buffer(_NBYTES * _PLACES)

    def gigabytes_per_second(self, *, numbered: bool, gap: float) -> float:
        """Of one message, in the median; `gap` seconds lie between two."""
        libcrypto, written, tag = self._libcrypto, c_int(), create_string_buffer(_TAG_BYTES)
        context = c_void_p(libcrypto.EVP_CIPHER_CTX_new())
        libcrypto.EVP_CipherInit_ex(context, self._cipher, None, os.urandom(32), None, 1)
        spent = []
        for number in range(1, _WARM + _MESSAGES + 1):
            iv = number.to_bytes(4, "little") + bytes(8) if numbered else os.urandom(12)
            at = number % _PLACES * _NBYTES
            places = byref(self._ciphertext, at), byref(written), byref(self._plaintext, at)
            begin = time.perf_counter()
            libcrypto.EVP_CipherInit_ex(context, None, None, None, iv, -1)
            libcrypto.EVP_CipherUpdate(context, *places, _NBYTES)
            libcrypto.EVP_CipherFinal_ex(context, None, byref(written))
            libcrypto.EVP_CIPHER_CTX_ctrl(context, _GET_TAG, _TAG_BYTES, tag)
            spent.append(time.perf_counter() - begin)
            if gap:
                time.sleep(gap)
        libcrypto.EVP_CIPHER_CTX_free(context)
        return _NBYTES / statistics.median(spent[_WARM:]) / 1e9


def main(module: str) -> None:
    sealer = Sealer(module)
    table = Table(
        title=f"messages of 1 MiB, measured, {_ROUNDS} rounds in turn, median (min to max)"
    )
    for heading in ("cores", "between two", "random IVs, GB/s", "numbered, GB/s", "ratio"):
        table.add_column(heading, justify="right")
    cores = os.sched_getaffinity(0)
    for allowed in ({min(cores)}, cores):
        os.sched_setaffinity(0, allowed)
        for gap in (0.0, _GAP_SECONDS):
            rates = [
                [sealer.gigabytes_per_second(numbered=way, gap=gap) for way in (False, True)]
                for _ in range(_ROUNDS)
            ]
            table.add_row(
                str(len(allowed)),
                f"{gap * 1e3:g} ms",
                *(f"{statistics.median(column):.1f}" for column in zip(*rates, strict=True)),
                f"{Spread.of(numbered / random for random, numbered in rates):.2f}",
            )
    Console(width=110).print(table)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(MODULE))
