"""What the lines of a trace file may hold: the schema of docs/traces.md, checked when one is read.

The bounds are those of what is recorded, and such that everything in a trace can be added up,
drawn, and asked of a device again.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Address = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Size = Annotated[int, Meta(ge=1, le=1 << 40)]
Stream = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Count = Annotated[int, Meta(ge=0, le=1 << 32)]
Amount = Annotated[float, Meta(ge=0, le=1e24)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Microseconds = Annotated[int, Meta(ge=-(1 << 53), le=1 << 53)]
Number = Annotated[int, Meta(ge=0, le=1 << 31)]
Status = Annotated[int, Meta(ge=-(1 << 31), le=1 << 31)]
How = Literal["", "b", "p", "bp"]


class CopyLine(Struct, array_like=True, tag="c", forbid_unknown_fields=True):
    direction: Literal["h2d", "d2h"]
    address: Address
    nbytes: Size
    device_address: Address
    stream: Stream
    how: How


class ComputeLine(Struct, array_like=True, tag="k", forbid_unknown_fields=True):
    stream: Stream
    flops: Amount
    nbytes: Amount
    kernels: Count


class SynchronizeLine(Struct, array_like=True, tag="s", forbid_unknown_fields=True):
    stream: Stream | None = None


class StreamWaitLine(Struct, array_like=True, tag="a", forbid_unknown_fields=True):
    stream: Stream
    awaited: Stream


class WriteLine(Struct, array_like=True, tag="w", forbid_unknown_fields=True):
    address: Address
    nbytes: Size


class IdleLine(Struct, array_like=True, tag="i", forbid_unknown_fields=True):
    seconds: Seconds


class DoneLine(Struct, array_like=True, tag="d", forbid_unknown_fields=True):
    units: Annotated[int, Meta(ge=1, le=1 << 31)]


EventLine = (
    CopyLine | ComputeLine | SynchronizeLine | StreamWaitLine | WriteLine | IdleLine | DoneLine
)
"""An event's array, without the time that it begins with."""


class Ran(Struct, forbid_unknown_fields=True):
    """What a program was recorded under."""

    profile: str
    policy: str
    gpu: str = "emulated"


class FirstLine(Struct):
    """The recording."""

    format: Literal["pipellm trace"]
    version: int
    program: list[str]
    settings: Ran
    exit_status: Status | None


class TraceLine(Struct, forbid_unknown_fields=True):
    """A trace, whose events follow."""

    name: str
    model: str
    unit: str
    pid: Number
    device: Annotated[int, Meta(ge=0, le=65535)]
    argv: list[str]
    complete: bool


class LastLine(Struct, forbid_unknown_fields=True):
    """The number of all events."""

    events: int
