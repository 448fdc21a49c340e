"""The OpenSSL provider beside OpenSSL's own AES-256-GCM, by `openssl speed`.

python -m pipellm.bench.provider

The two are run in turn, and a ratio is taken within one round: these machines drift. One core is
measured in processor time, which other programs on the machine hardly change; all cores in elapsed
time, since that is what more cores are for.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from pipellm.attach.libcrypto import MODULE, PROVIDER
from pipellm.errors import UserError

_SIZES = (16, 64, 256, 1 << 10, 16 << 10, 256 << 10, 1 << 20)
_POOLED = 512 << 10
"""From here on the provider splits a message over several cores (native/provider)."""
_ROUNDS = 7
_SECONDS = 1

_WITH_PROVIDER = [
    *("-provider-path", str(MODULE.parent), "-provider", PROVIDER, "-provider", "default"),
    *("-propquery", f"provider={PROVIDER}"),
]


def main() -> None:
    title = f"`openssl speed`, measured, {_ROUNDS} rounds, median (min to max); {_info()}"
    table = Table(title=title)
    sides = ("default\nGB/s", "pipellm\nGB/s", "ratio,\none core", "ratio,\nall cores")
    for column in ("bytes", *sides):
        table.add_column(column, justify="right", no_wrap=True)
    for size in _SIZES:
        rounds = [(_speed(size, []), _speed(size, _WITH_PROVIDER)) for _ in range(_ROUNDS)]
        pooled = "the same"
        if size >= _POOLED:
            pooled = _ratios(
                [
                    (_speed(size, [], one_core=False), _speed(size, _WITH_PROVIDER, one_core=False))
                    for _ in range(_ROUNDS)
                ]
            )
        default, ours = ([pair[i] for pair in rounds] for i in (0, 1))
        table.add_row(
            str(size),
            f"{statistics.median(default) / 1e9:.2f}",
            f"{statistics.median(ours) / 1e9:.2f}",
            _ratios(rounds),
            pooled,
        )
    Console().print(table)


def _ratios(rounds: Sequence[tuple[float, float]]) -> str:
    ratios = [ours / default for default, ours in rounds]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def _speed(size: int, options: Sequence[str], *, one_core: bool = True) -> float:
    """Bytes per second that one `openssl speed` encrypts in messages of `size` bytes."""
    command = ["openssl", "speed", "-mr", "-seconds", str(_SECONDS), "-bytes", str(size)]
    command += [*options, *([] if one_core else ["-elapsed"]), "-evp", "aes-256-gcm"]
    core = min(os.sched_getaffinity(0))
    said = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=(lambda: os.sched_setaffinity(0, {core})) if one_core else None,
    )
    result = re.search(r"^\+F:\d+:[^:]*:([0-9.]+)$", said.stdout, re.MULTILINE | re.IGNORECASE)
    if said.returncode != 0 or result is None:
        raise UserError(f"`{' '.join(command)}` failed: {said.stderr.strip()}")
    return float(result[1])


def _info() -> str:
    said = subprocess.run(
        ["openssl", "list", "-providers", "-verbose", *_WITH_PROVIDER[:4]],
        capture_output=True,
        text=True,
        check=True,
    )
    version = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=True)
    primitive = re.search(r"build info: (.*)", said.stdout[said.stdout.index("PipeLLM") :])
    return f"{version.stdout.split(' (')[0].strip()}, {primitive[1] if primitive else 'unknown'}"


if __name__ == "__main__":
    main()
