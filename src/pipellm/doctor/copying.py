"""One copy to the GPU and back through NVIDIA's driver, with the provider attached.

python -m pipellm.doctor.copying prints what came of it as JSON. The doctor runs that in a process
of its own: CUDA stays in a process that used it, and a driver may do worse than return an error.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from ctypes import byref, c_int, c_size_t, c_uint, c_uint64, c_void_p
from dataclasses import asdict

from pipellm.attach.libcrypto import attach_libcrypto, served
from pipellm.doctor.machine import Copying

_NBYTES = 8 << 20
_SECONDS = 60
"""A confidential GPU's first context takes a few of them."""

_DRIVER = "libcuda.so.1"


class CudaError(Exception):
    """A call of the driver's failed."""


def run() -> Copying:
    command = [sys.executable, "-m", __spec__.name]
    try:
        said = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Copying(problem=f"a copy did not end within {_SECONDS} s")
    try:
        return Copying(**json.loads(said.stdout))
    except (ValueError, TypeError):
        last = said.stderr.strip().splitlines()[-1:] or ["nothing said"]
        return Copying(problem=f"the process that copied ended with {said.returncode}: {last[0]}")


def copy() -> Copying:
    """Raises UserError if the provider cannot be attached."""
    with attach_libcrypto():
        try:
            driver = _Driver()
            before = served().nbytes
            sent = bytes(os.urandom(_NBYTES))
            if driver.there_and_back(sent) != sent:
                return Copying(problem="what came back from the GPU is not what was sent")
            return Copying(
                nbytes=2 * _NBYTES,
                served_bytes=served().nbytes - before,
                host_register=driver.register_host_memory(),
            )
        except (CudaError, OSError) as error:
            return Copying(problem=str(error))


class _Driver:
    """CUDA's driver API, on the first GPU."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(_DRIVER)
        device, context = c_int(), c_void_p()
        self._call("cuInit", c_uint(0))
        self._call("cuDeviceGet", byref(device), c_int(0))
        self._call("cuDevicePrimaryCtxRetain", byref(context), device)
        self._call("cuCtxSetCurrent", context)

    def there_and_back(self, sent: bytes) -> bytes:
        memory, back = c_uint64(), ctypes.create_string_buffer(len(sent))
        self._call("cuMemAlloc_v2", byref(memory), c_size_t(len(sent)))
        self._call("cuMemcpyHtoD_v2", memory, sent, c_size_t(len(sent)))
        self._call("cuMemcpyDtoH_v2", back, memory, c_size_t(len(sent)))
        self._call("cuMemFree_v2", memory)
        return back.raw

    def register_host_memory(self) -> int:
        """The CUresult of registering some; whatever was registered is given back."""
        page = 4096
        memory = ctypes.create_string_buffer(2 * page)
        start = (ctypes.addressof(memory) + page - 1) // page * page
        result = int(self._library.cuMemHostRegister_v2(c_void_p(start), c_size_t(page), c_uint(0)))
        if result == 0:
            self._library.cuMemHostUnregister(c_void_p(start))
        return result

    def _call(self, name: str, *arguments: object) -> None:
        result = getattr(self._library, name)(*arguments)
        if result != 0:
            raise CudaError(f"{name} failed: CUDA error {result}")


if __name__ == "__main__":
    print(json.dumps(asdict(copy())))
