"""The host of a simulated GPU, in rates."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from types import MappingProxyType

from pipellm.errors import UserError, choice, unknown

_MOST = 1e12
_CROSSINGS = 5
"""How often a byte crosses the memory bus on its way: read and written when it is sealed, again
when it is moved to the bounce buffer, and read by the device."""


@dataclass(frozen=True, slots=True)
class Host:
    """What a host does. Rates in GB (10^9 bytes) per second, of one core unless said."""

    cores: int
    """That the program may use. All but one of them seal and open behind its back."""
    libcrypto: float
    """Sealed, or opened, by the system's libcrypto: as shipped."""
    seal: float
    """Sealed, or opened, by the fastest engine: PipeLLM's."""
    copy: float
    """Copied from memory to memory."""
    memory: float
    """Read and written by all cores together."""
    scan: float
    """Shown not to have changed since it was sealed."""
    decision: float
    """Microseconds that a planner thinks: under `pipelined` each time that it is asked, on the
    program's thread; under `prefetch` about each copy, on one of its own."""

    def __post_init__(self) -> None:
        for name in quantities():
            value = getattr(self, name)
            if not 0 < value <= _MOST and not (name == "decision" and value == 0):
                raise UserError(
                    f"host: {name} = {value:g}: expected a number above 0, at most {_MOST:g}"
                )

    @property
    def workers(self) -> int:
        """Threads of the pool (runtime/planning.py)."""
        return max(1, self.cores - 1)

    def sealing(self, threads: int) -> float:
        """Bytes per second that so many threads seal or open with the fastest engine."""
        return self._within_memory(min(threads, self.cores) * self.seal)

    def moving(self, threads: int) -> float:
        """Bytes per second that so many threads look at and move to the bounce buffer."""
        return self._within_memory(min(threads, self.cores) / (1 / self.copy + 1 / self.scan))

    def spread(self, rate: float, threads: int) -> float:
        """Bytes per second of so many threads that do `rate` GB/s each."""
        return self._within_memory(min(threads, self.cores) * rate)

    def _within_memory(self, rate: float) -> float:
        # Sealing and moving take turns on the bus, each with its half of the crossings.
        return min(rate, self.memory * 2 / _CROSSINGS) * 1e9

    def with_(self, name: str, value: float) -> Host:
        """The same host with another value of one quantity; raises UserError if there is none."""
        if name not in quantities():
            raise unknown("quantity of a host", name, quantities())
        if name == "cores" and not (1 <= value <= _MOST and value == int(value)):
            raise UserError(f"host: cores = {value:g}: expected a whole number from 1 up")
        return Host(**asdict(self) | {name: int(value) if name == "cores" else value})

    @staticmethod
    def named(name: str) -> Host:
        """The host called `name`; raises UserError if there is none."""
        return choice("host", name, HOSTS)


def quantities() -> tuple[str, ...]:
    """The names of what a host is described by."""
    return tuple(field.name for field in fields(Host))


# Marks: S quoted by a secondary source, I inferred, M measured by a command of this repository on
# one core of a Zen 5 with AVX-512 and VAES.
_SERVER = Host(
    # I: one socket of "two Xeons" (S), the one that the GPU hangs on.
    cores=32,
    # M (pipellm.bench.engines): OpenSSL 3.0, whose GCM has no VAES path, as in today's LTS guests.
    libcrypto=5.5,
    # M (the same): ipsec-mb. I: so fast here too; a host with PCIe 5.0 is new enough for VAES.
    seal=18.5,
    # M (the same): memcpy.
    copy=19.5,
    # I: eight channels of DDR5-4800, the data sheet's peak of such a socket.
    memory=307.2,
    # M: a strict scan of 1 MiB in pages of 4 KiB, 4.5 µs.
    scan=233.0,
    # M (pipellm.bench.decisions): 14 to 36 µs in Python.
    decision=25.0,
)

HOSTS = MappingProxyType({"server": _SERVER})
"""Hosts that nobody has measured as a whole. `server` stands for the paper's."""
