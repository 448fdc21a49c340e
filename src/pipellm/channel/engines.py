"""Which library seals fastest on this machine.

One core seals between 4 and 19 GB/s, depending on what the CPU has (VAES), on how old the system's
OpenSSL is, and on whether ipsec-mb is installed. So it is measured at start and reported, never
assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from pipellm import _native

LIBCRYPTO = "openssl"
"""What NVIDIA's driver seals with: the system's libcrypto through EVP."""

_SECONDS = 0.005
"""Long enough to seal a hundred messages, short enough for every program's start."""


@dataclass(frozen=True, slots=True)
class Engines:
    """The AES-256-GCM engines of this build, with what one core seals through each."""

    gigabytes_per_second: dict[str, float]

    @property
    def fastest(self) -> str:
        return max(self.gigabytes_per_second, key=self.gigabytes_per_second.__getitem__)


@cache
def measured() -> Engines:
    """The engines as measured in this process, once."""
    return Engines({name: _native.measure_seal(name, _SECONDS) / 1e9 for name in _native.engines()})
