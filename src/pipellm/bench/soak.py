"""Many minutes of swaps in changing phases: memory must stay flat, and nothing may fail.

    python -m pipellm.bench.soak [--minutes 10]

Every phase is another pattern (repeated weights, KV cache back in arrival order, newest first, no
order, weights that change), and every byte that arrives is checked. Exit status 1 if the process
grew by more than 5 % from the first tenth to the last, or a byte was wrong.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator

import torch
from rich.progress import Progress

import pipellm
from pipellm.gpu import emulated
from pipellm.transfers import CHUNK

_BUFFERS = 16
_WORDS = CHUNK // 4 + 1000  # float32: two messages each
_GROWTH = 1.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (%(default)s)")
    seconds = parser.parse_args().minutes * 60
    pipellm.enable(profile="h100", policy="pipelined")
    soak = Soak()
    resident: list[tuple[float, int]] = []
    arena = 0
    start = time.monotonic()
    with Progress() as progress:
        task = progress.add_task("soak", total=seconds)
        for phase in soak.phases():
            phase()
            now = time.monotonic() - start
            resident.append((now, _resident_bytes()))
            arena = max(arena, emulated.driver().context(0).arena_in_use)
            progress.update(task, completed=min(now, seconds))
            if now >= seconds:
                break
    first = max(size for at, size in resident if at <= max(seconds / 10, resident[0][0]))
    last = max(size for at, size in resident if at >= seconds * 0.9)
    print(f"{len(resident)} phases, {soak.checked / 1e9:,.1f} GB checked, {soak.wrong} wrong bytes")
    print(f"resident: {first / 1e6:,.0f} MB in the first tenth, {last / 1e6:,.0f} MB in the last")
    print(f"arena: at most {arena} messages")
    return 0 if soak.wrong == 0 and last <= first * _GROWTH else 1


class Soak:
    """Phases of swaps over the same buffers."""

    def __init__(self) -> None:
        self._random = random.Random(1)
        self._host = [torch.full((_WORDS,), float(i)).pin_memory() for i in range(_BUFFERS)]
        self._device = torch.empty(_WORDS, device="cuda")
        self.checked = 0
        self.wrong = 0

    def phases(self) -> Iterator[Callable[[], None]]:
        everything = [self._repeat, self._oldest_first, self._newest_first, self._any, self._change]
        while True:
            yield self._random.choice(everything)

    def _load(self, i: int) -> None:
        host = self._host[i]
        self._device.copy_(host, non_blocking=True)
        self.wrong += int((self._device != host[0].item()).sum().item()) * 4
        self.checked += _WORDS * 4

    def _store(self, i: int) -> None:
        self._device.fill_(self._random.random())
        self._host[i].copy_(self._device, non_blocking=True)
        torch.cuda.synchronize()

    def _repeat(self) -> None:
        for _ in range(8):
            for i in range(_BUFFERS):
                self._load(i)

    def _oldest_first(self) -> None:
        for _ in range(8):
            for i in range(_BUFFERS):
                self._store(i)
            for i in range(_BUFFERS):
                self._load(i)

    def _newest_first(self) -> None:
        for _ in range(8):
            for i in range(_BUFFERS):
                self._store(i)
            for i in reversed(range(_BUFFERS)):
                self._load(i)

    def _any(self) -> None:
        for _ in range(8 * _BUFFERS):
            self._load(self._random.randrange(_BUFFERS))

    def _change(self) -> None:
        for _ in range(8):
            for i in range(_BUFFERS):
                if self._random.random() < 0.2:
                    self._host[i].fill_(self._random.random())
                self._load(i)


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


if __name__ == "__main__":
    sys.exit(main())
