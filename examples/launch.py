"""One program under `pipellm run`: what it printed, and what crossed the link meanwhile."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples import process


@dataclass(frozen=True)
class Crossings:
    """What the statistics say of one run."""

    engine: str  # what sealed; "None" where nothing was
    h2d_bytes: int
    d2h_bytes: int
    h2d_transfers: int
    auth_failures: int
    hits: int | None  # swap-ins sent from what was sealed ahead; None where nothing is planned
    misses: int | None
    wasted_bytes: int | None  # sealed ahead, and wiped

    @property
    def hit_rate(self) -> str:
        """The share of swap-ins that had been sealed ahead, as a table shows it."""
        if self.hits is None or self.misses is None:
            return "-"
        return f"{self.hits / max(self.hits + self.misses, 1):.1%}"

    def beyond(self, shorter: "Crossings") -> tuple[int, int]:
        """Hits and misses of what this run of a policy that plans has more than a shorter one."""
        assert self.hits is not None
        assert self.misses is not None
        assert shorter.hits is not None
        assert shorter.misses is not None
        return self.hits - shorter.hits, self.misses - shorter.misses


def run(
    command: Sequence[str],
    policy: str,
    profile: str,
    folder: Path,
    on_line: Callable[[str], None] = lambda line: None,
    environment: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> tuple[str, Crossings]:
    """Runs a program on the emulated GPU, in `folder`, which is emptied and keeps the run's files.

    `command` is what follows `python`; `environment` is added to ours; `options` are for `pipellm
    run`. `on_line` gets every line of output as it comes, the whole of it is returned. Raises
    PieceError if the program or PipeLLM fails.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    statistics = folder / "statistics.json"
    output = process.run(
        [
            *(sys.executable, "-m", "pipellm", "run", "--quiet", "--gpu", "emulated"),
            *("--profile", profile, "--policy", policy, "--stats", str(statistics), *options),
            *("--", sys.executable, *command),
        ],
        log=folder / "output.txt",
        on_line=on_line,
        cwd=folder,
        environment={
            "HF_HUB_OFFLINE": "1",
            # The device's arithmetic runs on these cores; one spare for the device's other half.
            "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) - 1)),
            **(environment or {}),
        },
    )
    return output, crossings_of(json.loads(statistics.read_text()))


def crossings_of(statistics: Mapping[str, Any]) -> Crossings:
    """Of a run's statistics, or of one of the `processes` in them."""
    foreseen = statistics.get("speculation") or statistics.get("prefetching", {})
    return Crossings(
        engine=str(statistics["engine"]),
        h2d_bytes=statistics["h2d"]["bytes"],
        d2h_bytes=statistics["d2h"]["bytes"],
        h2d_transfers=statistics["h2d"]["transfers"],
        auth_failures=statistics["auth_failures"],
        hits=foreseen.get("hits"),
        misses=foreseen.get("misses"),
        wasted_bytes=foreseen.get("wasted_bytes", foreseen.get("in_vain_bytes")),
    )
