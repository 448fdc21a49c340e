"""What the OpenSSL provider has sealed and opened in the processes of a program.

Each process that loads the provider leaves a file in the folder of the run: two counters, as
`native/provider/served.h` has them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SUFFIX = ".served"
_COUNTERS = struct.Struct("=QQ")


@dataclass(frozen=True, slots=True)
class Served:
    """One process, with its forked children: updates of 4 KiB or more, and their bytes."""

    pid: int
    updates: int
    nbytes: int


def collect(directory: Path) -> Sequence[Served]:
    """The processes that loaded the provider, by number."""
    return sorted(
        (
            Served(int(file.name.partition("-")[0]), *_COUNTERS.unpack_from(content))
            for file in directory.glob(f"*{SUFFIX}")
            if len(content := file.read_bytes()) >= _COUNTERS.size
        ),
        key=lambda served: served.pid,
    )
