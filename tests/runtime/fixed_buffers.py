"""io_uring with registered buffers: the kernel pins their pages once, and writes to them later.

No page fault of this process comes with such a write, so nothing that watches its pages sees it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Sequence

_SETUP, _ENTER, _REGISTER = 425, 426, 427  # the same on every architecture
_REGISTER_BUFFERS = 0
_READ_FIXED = 4
_WAIT = 1
_SUBMISSIONS, _COMPLETIONS, _ENTRIES = 0, 0x8000000, 0x10000000  # what to map
_ENTRY = struct.Struct("<BBHiQQIIQH22x")
_COMPLETION = struct.Struct("<QiI")

_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: int) -> int:
    result = int(_libc.syscall(*map(ctypes.c_long, (number, *arguments))))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


class FixedBuffers:
    """Buffers (address, bytes) into which files are read. Raises OSError where it is forbidden."""

    def __init__(self, buffers: Sequence[tuple[int, int]]) -> None:
        parameters = (ctypes.c_uint32 * 30)()
        self._ring = _call(_SETUP, 1, ctypes.addressof(parameters))
        submissions, completions = list(parameters[10:20]), list(parameters[20:30])
        self._submissions = self._map(_SUBMISSIONS, submissions[6] + 4 * parameters[0])
        size = completions[5] + _COMPLETION.size * parameters[1]
        self._completions = self._map(_COMPLETIONS, size)
        self._entries = self._map(_ENTRIES, _ENTRY.size * parameters[0])
        self._tail, self._array = submissions[1], submissions[6]
        self._done, self._mask, self._results = completions[0], completions[2], completions[5]
        self._buffers = buffers
        vectors = (ctypes.c_uint64 * (2 * len(buffers)))(
            *(word for pair in buffers for word in pair)
        )
        _call(_REGISTER, self._ring, _REGISTER_BUFFERS, ctypes.addressof(vectors), len(buffers))

    def read(self, file: int, index: int) -> None:
        """Fills a buffer from the beginning of a file."""
        address, nbytes = self._buffers[index]
        entry = _ENTRY.pack(_READ_FIXED, 0, 0, file, 0, address, nbytes, 0, 0, index)
        self._entries[: len(entry)] = entry
        self._submissions[self._array : self._array + 4] = bytes(4)
        self._add_one(self._submissions, self._tail)
        _call(_ENTER, self._ring, 1, 1, _WAIT, 0, 0)
        (mask,) = struct.unpack_from("<I", self._completions, self._mask)
        number = self._add_one(self._completions, self._done) & mask
        place = self._results + _COMPLETION.size * number
        _, result, _ = _COMPLETION.unpack_from(self._completions, place)
        if result != nbytes:
            raise OSError(-result, os.strerror(-result))

    def close(self) -> None:
        """Lets go of the pages."""
        os.close(self._ring)

    def _map(self, what: int, nbytes: int) -> mmap.mmap:
        return mmap.mmap(self._ring, nbytes, offset=what)

    @staticmethod
    def _add_one(ring: mmap.mmap, offset: int) -> int:
        (value,) = struct.unpack_from("<I", ring, offset)
        struct.pack_into("<I", ring, offset, value + 1)
        return int(value)
