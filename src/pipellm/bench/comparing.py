"""What it costs to compare the bytes of what was sealed ahead before it is sent.

    python -m pipellm.bench.comparing

Each round runs two processes, one after the other, over the same swap-ins, all of them sealed
ahead: one as it is, one that takes it for granted that nothing has changed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

import torch
from rich.console import Console
from rich.table import Table

import pipellm
from pipellm import _native
from pipellm.bench.spread import Spread
from pipellm.channel import engines
from pipellm.gpu import emulated
from pipellm.transfers import CHUNK

_ROUNDS = 7
_SECONDS = 0.1
_BUFFERS = 3
_CHUNKS = 8
_WARM = 6
_PASSES = 20


def main() -> None:
    if len(sys.argv) == 2:
        print(json.dumps(_child(compared=sys.argv[1] == "compared")))
        return
    hashed, of_sealing, compared, blind = [], [], [], []
    fastest = engines.measured().fastest
    for _ in range(_ROUNDS):
        rate = _native.measure_fingerprint(_SECONDS)
        hashed.append(CHUNK / rate * 1e6)
        of_sealing.append(_native.measure_seal(fastest, _SECONDS) / rate)
        compared.append(_run("compared"))
        blind.append(_run("blind"))
    table = Table("what", title=f"measured, median of {_ROUNDS} rounds (min to max)")
    table.add_column("value", justify="right")
    table.add_row("a hash of 1 MiB, µs", f"{Spread.of(hashed):.0f}")
    table.add_row(f"as a share of sealing it ({fastest})", f"{Spread.of(of_sealing):.2f}")
    table.add_row("a hit, µs per MiB on the program's thread", f"{Spread.of(compared):.0f}")
    table.add_row("the same, nothing compared", f"{Spread.of(blind):.0f}")
    Console().print(table)


def _run(what: str) -> float:
    command = [sys.executable, "-m", "pipellm.bench.comparing", what]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output))


def _child(*, compared: bool) -> float:
    pipellm.enable(profile="fast", policy="pipelined")
    nbytes = _CHUNKS * CHUNK
    weights = [torch.ones(nbytes, dtype=torch.uint8).pin_memory() for _ in range(_BUFFERS)]
    target = torch.empty(nbytes, dtype=torch.uint8, device="cuda")
    spent = []
    for number in range(_WARM + _PASSES):
        if number == _WARM and not compared:
            emulated.driver().context(0).go_blind(bytes=True)
        for weight in weights:
            emulated.driver().context(0).wait_idle()  # all that is foreseen is sealed
            start = time.thread_time()
            target.copy_(weight, non_blocking=True)
            spent.append((time.thread_time() - start) / _CHUNKS * 1e6)
            torch.cuda.synchronize()
    return sorted(spent[_WARM * _BUFFERS :])[_PASSES * _BUFFERS // 2]


if __name__ == "__main__":
    main()
