"""What a copy costs beside its bytes: the driver, layers over it, the seam to torch, Python.

    python -m pipellm.bench.seam

Copies of 64 bytes under profile `fast`, which models nothing: all time is the emulator's own. The
requests of the prefetch layer are asynchronous copies of pinned memory, of more bytes: what their
caller pays, launches included. Up to 32 KiB it is the caller who compares the bytes. Copies of 224
KiB are such as vLLM swaps layer by layer: what they cost the caller of a CPU where they were sealed
ahead, each policy in a process of its own.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

import pipellm
from pipellm import _native
from pipellm.bench.drivers import shipped_driver
from pipellm.bench.requests import Requests
from pipellm.gpu import emulated

_BYTES = 64
_COPIES = 2000
_ROUNDS = 9
_SWAP_BYTES = 224 << 10
_BUFFERS = 16
_WARM, _PASSES = 8, 20


def main() -> None:
    if len(sys.argv) == 2:
        print(_swap(sys.argv[1]))
        return
    pipellm.enable(profile="fast", policy="off")
    clear, sealed, tapped = (
        shipped_driver("fast", confidential=confidential) for confidential in (False, True, True)
    )
    tapped.set_tap(0, lambda direction, number, message: None)
    host = torch.zeros(_BYTES, dtype=torch.uint8)
    device, other = host.cuda(), torch.zeros_like(host)
    rows: dict[str, Callable[[], float]] = {
        "torch: CPU to CPU copy_ (no seam)": lambda: _per_call(lambda: other.copy_(host)),
        "driver alone, off": lambda: _per_copy(clear),
        "driver alone, serial (sealed and opened)": lambda: _per_copy(sealed),
        "the same, with a call into Python": lambda: _per_copy(tapped),
        "torch: H2D copy_, off": lambda: _per_call(lambda: device.copy_(host)),
        "torch: an operator on the device (add_)": lambda: _per_call(lambda: device.add_(1)),
        "torch: the same operator on the CPU": lambda: _per_call(lambda: other.add_(1)),
    }
    requests = Requests()
    rows |= requests.rows()
    seen: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(_ROUNDS):  # in turn: these machines drift
        for name, measure in rows.items():
            seen[name].append(measure())
        for policy in ("off", "pipelined"):
            row = f"torch: H2D copy_ of 224 KiB, pinned, {policy}: CPU of the caller"
            seen.setdefault(row, []).append(_in_process(policy))
    title = f"µs per call, {_BYTES} bytes or as said, measured, median of {_ROUNDS} (min to max)"
    table = Table("what", title=title)
    table.add_column("µs", justify="right")
    for name, times in seen.items():
        spread = f"({min(times):.2f} to {max(times):.2f})"
        table.add_row(name, f"{statistics.median(times):.2f} {spread}")
    Console().print(table)
    requests.close()


def _in_process(policy: str) -> float:
    command = [sys.executable, "-m", "pipellm.bench.seam", policy]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _swap(policy: str) -> float:
    pipellm.enable(profile="fast", policy=policy)
    weights = [torch.ones(_SWAP_BYTES, dtype=torch.uint8).pin_memory() for _ in range(_BUFFERS)]
    target = torch.empty(_SWAP_BYTES, dtype=torch.uint8, device="cuda")
    spent = []
    for _ in range(_WARM + _PASSES):
        for weight in weights:
            if policy == "pipelined":
                emulated.driver().context(0).wait_idle()  # all that is foreseen is sealed
            start = time.thread_time()
            target.copy_(weight, non_blocking=True)
            spent.append((time.thread_time() - start) * 1e6)
        torch.cuda.synchronize()
    return statistics.median(spent[_WARM * _BUFFERS :])


def _per_copy(driver: _native.Driver) -> float:
    times = driver.measure_copies(direction=0, pinned=False, nbytes=_BYTES, repeats=_COPIES)
    return statistics.median(wall for _, wall in times) / 1e3


def _per_call(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    for _ in range(_COPIES):
        call()
    return (time.perf_counter() - start) / _COPIES * 1e6


if __name__ == "__main__":
    main()
