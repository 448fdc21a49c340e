"""The driver's C table (native/link/driver_api.h) through ctypes, as its client sees it."""

from __future__ import annotations

import ctypes
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_double,
    c_int,
    c_int32,
    c_int64,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Any

from pipellm import _native

H2D, D2H = 0, 1
OK, INVALID_VALUE, OUT_OF_MEMORY, INVALID_DEVICE = 0, 1, 2, 101
INVALID_HANDLE, NOT_READY, CONTEXT_LOST, NOT_PERMITTED, NOT_SUPPORTED = 400, 600, 719, 800, 801

Release = CFUNCTYPE(None, c_void_p)


class Copy(Structure):
    _fields_ = (
        ("device", c_int32),
        ("direction", c_int32),
        ("destination", c_void_p),
        ("source", c_void_p),
        ("nbytes", c_uint64),
        ("asynchronous", c_int32),
        ("reserved", c_int32),
        ("stream", c_int64),
        ("token", c_void_p),
        ("release", Release),
    )


class DeviceCopy(Structure):
    _fields_ = (
        ("destination", c_void_p),
        ("source", c_void_p),
        ("nbytes", c_uint64),
    )


class MemoryInfo(Structure):
    _fields_ = (
        ("total", c_uint64),
        ("allocated", c_uint64),
    )


def _entry(*arguments: Any, result: Any = c_int) -> Any:
    return CFUNCTYPE(result, c_void_p, *arguments)


class _Table(Structure):
    _fields_ = (
        ("abi", c_uint32),
        ("size", c_uint32),
        ("self", c_void_p),
        ("last_error", _entry(result=c_char_p)),
        ("device_count", _entry()),
        ("in_bad_fork", _entry()),
        ("confidential", _entry()),
        ("malloc", _entry(c_int32, c_uint64, POINTER(c_void_p))),
        ("free", _entry(c_void_p)),
        ("host_alloc", _entry(c_uint64, POINTER(c_void_p))),
        ("host_free", _entry(c_void_p)),
        ("host_register", _entry(c_void_p, c_uint64)),
        ("host_unregister", _entry(c_void_p)),
        ("is_pinned", _entry(c_void_p)),
        ("device_of", _entry(c_void_p)),
        ("memory_info", _entry(c_int32, POINTER(MemoryInfo))),
        ("copy", _entry(POINTER(Copy))),
        ("sync", _entry(c_int32, c_int32, c_int64)),
        ("launch", _entry(c_int32, c_int64)),
        ("busy", _entry(c_int32, c_int64, c_int64)),
        ("operated", _entry(c_int32, c_int64, c_double, c_uint64)),
        ("stream_create", _entry(c_int32, POINTER(c_int64))),
        ("stream_query", _entry(c_int32, c_int64)),
        ("event_create", _entry(c_int32, POINTER(c_void_p))),
        ("event_destroy", _entry(c_void_p)),
        ("event_record", _entry(c_void_p, c_int64)),
        ("event_query", _entry(c_void_p)),
        ("event_synchronize", _entry(c_void_p)),
        ("event_elapsed", _entry(c_void_p, c_void_p, POINTER(c_double))),
        ("stream_wait_event", _entry(c_int32, c_int64, c_void_p)),
        ("copy_on_device", _entry(c_int32, c_int64, POINTER(DeviceCopy), c_uint64)),
        ("fill", _entry(c_int32, c_int64, c_void_p, c_int32, c_uint64)),
        ("stream_write_value", _entry(c_int32, c_int64, c_void_p, c_uint32)),
        ("stream_wait_value", _entry(c_int32, c_int64, c_void_p, c_uint32)),
    )


class DriverError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class DriverTable:
    """Calls the table's entries; a status other than OK and NOT_READY is a `DriverError`."""

    def __init__(self, driver: _native.Driver | _native.PrefetchDriver) -> None:
        self._driver = driver  # keeps the table alive
        self._table = _Table.from_address(driver.api_address)
        assert self._table.size == ctypes.sizeof(_Table)

    def call(self, entry: str, *arguments: Any) -> int:
        status = int(getattr(self._table, entry)(self._table.self, *arguments))
        if status not in (OK, NOT_READY):
            text = self._table.last_error(self._table.self)
            raise DriverError(status, text.decode())
        return status

    def ask(self, entry: str, *arguments: Any) -> int:
        return int(getattr(self._table, entry)(self._table.self, *arguments))

    def malloc(self, nbytes: int, device: int = 0) -> int:
        out = c_void_p()
        self.call("malloc", device, nbytes, byref(out))
        assert out.value is not None
        return out.value

    def host_alloc(self, nbytes: int) -> int:
        out = c_void_p()
        self.call("host_alloc", nbytes, byref(out))
        assert out.value is not None
        return out.value

    def memory_info(self, device: int = 0) -> MemoryInfo:
        info = MemoryInfo()
        self.call("memory_info", device, byref(info))
        return info

    def copy(
        self,
        direction: int,
        destination: int,
        source: int,
        nbytes: int,
        *,
        asynchronous: bool = False,
        stream: int = 0,
        device: int = 0,
        release: Any = None,
        token: int = 0,
    ) -> None:
        request = Copy(
            device, direction, destination, source, nbytes, asynchronous, 0, stream, token,
            release if release is not None else Release(),
        )  # fmt: skip
        self.call("copy", byref(request))

    def copy_on_device(self, *copies: tuple[int, int, int], stream: int = 0) -> None:
        """`copies`: destination, source, bytes. In one launch."""
        batch = (DeviceCopy * len(copies))(*(DeviceCopy(*copy) for copy in copies))
        self.call("copy_on_device", 0, stream, batch, len(copies))

    def synchronize(self, stream: int | None = None, device: int = 0) -> None:
        self.call("sync", device, 1 if stream is None else 0, stream or 0)

    def stream(self, device: int = 0) -> int:
        out = c_int64()
        self.call("stream_create", device, byref(out))
        return out.value

    def event(self, device: int = 0) -> int:
        out = c_void_p()
        self.call("event_create", device, byref(out))
        assert out.value is not None
        return out.value

    def elapsed_ms(self, start: int, end: int) -> float:
        out = c_double()
        self.call("event_elapsed", start, end, byref(out))
        return out.value
