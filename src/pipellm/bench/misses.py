"""What it costs to be wrong: `pipelined` in random order against `serial`, and giving up a window.

    python -m pipellm.bench.misses

Swap-ins in uniformly random order cannot be predicted, so `pipelined` has nothing but its overhead.
Each round runs both policies, one process after the other, over the same sequence.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time

import torch
from rich.console import Console
from rich.table import Table

import pipellm
from pipellm.bench.spread import Spread
from pipellm.gpu import emulated
from pipellm.transfers import CHUNK

_ROUNDS = 7
_BUFFERS = 24
_BYTES = 2 * CHUNK
_SWAPS = 300
_WINDOW = 64


def main() -> None:
    if len(sys.argv) == 2:
        print(json.dumps(_child(sys.argv[1])))
        return
    ratios, sealing, giving_up, wiping = [], [], [], []
    for _ in range(_ROUNDS):
        serial, pipelined = _run("serial"), _run("pipelined")
        ratios.append(pipelined["seconds"] / serial["seconds"])
        sealing.append(pipelined["seal_us"])
        giving_up.append(pipelined["relinquish_us"])
        wiping.append(pipelined["wipe_us"])
    table = Table("what", title=f"measured, median of {_ROUNDS} rounds (min to max)")
    table.add_column("value", justify="right")
    table.add_row("random order: paper's time / serial's, profile h100", f"{Spread.of(ratios):.3f}")
    window = f"a window of {_WINDOW} MiB"
    table.add_row(f"sealing {window}, µs", f"{Spread.of(sealing):,.0f}")
    table.add_row(
        f"relinquishing {window}, µs on the calling thread", f"{Spread.of(giving_up):,.0f}"
    )
    table.add_row(f"wiping {window}, µs on the pool", f"{Spread.of(wiping):,.0f}")
    Console().print(table)


def _run(policy: str) -> dict[str, float]:
    command = [sys.executable, "-m", "pipellm.bench.misses", policy]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(output)
    return result


def _child(policy: str) -> dict[str, float]:
    pipellm.enable(profile="h100", policy=policy)
    weights = [torch.ones(_BYTES, dtype=torch.uint8).pin_memory() for _ in range(_BUFFERS)]
    target = torch.empty(_BYTES, dtype=torch.uint8, device="cuda")
    order = random.Random(0)
    clock = emulated.driver().clock

    def swap_in() -> None:
        target.copy_(order.choice(weights), non_blocking=True)
        torch.cuda.synchronize()

    for _ in range(_SWAPS // 4):
        swap_in()
    start = clock.now()
    for _ in range(_SWAPS):
        swap_in()
    result = {"seconds": (clock.now() - start) / 1e9}
    if policy == "pipelined":
        result |= _give_up(weights)
    return result


def _give_up(weights: list[torch.Tensor]) -> dict[str, float]:
    """Seals a window behind the planner's back, and relinquishes it."""
    context = emulated.driver().context(0)
    first = 1 << 40  # ids that no planner has used
    ids = range(first, first + _WINDOW * CHUNK // _BYTES)
    start = time.perf_counter()
    for identity in ids:
        weight = weights[identity % len(weights)]
        context.speculate(identity, weight.data_ptr(), _BYTES, 0, _BYTES // CHUNK, 1 << 31)
    context.wait_idle()
    sealed = time.perf_counter()
    for identity in ids:
        context.relinquish(identity)
    relinquished = time.perf_counter()
    context.wait_idle()
    wiped = time.perf_counter()
    return {
        "seal_us": (sealed - start) * 1e6,
        "relinquish_us": (relinquished - sealed) * 1e6,
        "wipe_us": (wiped - relinquished) * 1e6,
    }


if __name__ == "__main__":
    main()
