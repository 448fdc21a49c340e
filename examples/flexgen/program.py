"""The main job: unmodified FlexGen under `pipellm run`, and what it says about itself."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from examples.flexgen import model, process, recital
from examples.flexgen.model import Model

# All weights in host memory; KV cache and activations on the device.
PLACEMENT = ("0", "100", "100", "0", "100", "0")
BATCH = 4  # FlexGen's default; it prints the first and the last row, all rows have the same prompt
PROMPT_LENGTH = 8  # the prompt's six words, padded as FlexGen pads them

# Lines by which FlexGen says where it is.
_STAGES = {
    "init weight...": "reading the weights into host memory",
    "warmup - generate": "warming up",
    "benchmark - generate": "generating",
    "Outputs:": "done",
}


class OutputError(Exception):
    """FlexGen ended well but did not print what its version 0.1.8 prints."""


@dataclass(frozen=True)
class Run:
    """One run: what it generated, how fast by its own account, and what crossed the link."""

    tokens: tuple[tuple[int, ...], ...]  # generated ids, without the prompt, of every printed row
    text: str
    decode_throughput: float  # tokens/s, all rows of the batch, the first token left out
    engine: str
    h2d_bytes: int
    d2h_bytes: int
    h2d_transfers: int
    auth_failures: int
    hits: int | None  # swap-ins sent from what was sealed ahead; None where nothing is planned
    misses: int | None


def run(
    of: Model,
    policy: str,
    profile: str,
    words: int,
    folder: Path,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Run:
    """Generates `words` tokens under one policy; `folder` is emptied and keeps the run's files.

    `on_stage` is told in words what FlexGen is at.
    Raises PieceError if FlexGen or PipeLLM fails, OutputError if the result is unreadable.
    """

    def on_line(line: str) -> None:
        if line in _STAGES:
            on_stage(_STAGES[line])

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    statistics = folder / "statistics.json"
    output = process.run(
        [
            *(sys.executable, "-m", "pipellm", "run", "--gpu", "emulated", "--profile", profile),
            *("--policy", policy, "--stats", str(statistics), "--"),
            *(sys.executable, "-m", "flexgen.flex_opt", "--model", model.NAME),
            *("--path", str(of.weights), "--percent", *PLACEMENT),
            *("--gpu-batch-size", str(BATCH), "--prompt-len", str(PROMPT_LENGTH)),
            *("--gen-len", str(words), "--offload-dir", str(folder / "offload")),
            *("--log-file", str(folder / "flexgen.log")),
        ],
        log=folder / "output.txt",
        on_line=on_line,
        cwd=folder,
        environment={
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_CACHE": str(of.hub),
            # The device's arithmetic runs on these cores; one spare for the device's other half.
            "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) - 1)),
        },
    )
    return _read(output, json.loads(statistics.read_text()))


def _read(output: str, statistics: dict[str, object]) -> Run:
    speed = re.search(r"^decode latency: .*decode throughput: ([\d.]+) token/s$", output, re.M)
    texts = re.findall(r"^\d+: (.*)$", output.partition("\nOutputs:\n")[2], re.M)
    if speed is None or not texts:
        raise OutputError("FlexGen printed no throughput or no text")
    prompt = recital.token_ids(recital.PROMPT)
    rows = [tuple(recital.token_ids(text)) for text in texts]
    if any(list(row[: len(prompt)]) != prompt for row in rows):
        raise OutputError(f"FlexGen's text does not begin with {recital.PROMPT!r}")
    h2d, d2h = _counters(statistics, "h2d"), _counters(statistics, "d2h")
    return Run(
        tokens=tuple(row[len(prompt) :] for row in rows),
        text=texts[0],
        decode_throughput=float(speed[1]),
        engine=str(statistics["engine"]),
        h2d_bytes=h2d["bytes"],
        d2h_bytes=d2h["bytes"],
        h2d_transfers=h2d["transfers"],
        auth_failures=int(str(statistics["auth_failures"])),
        **_speculation(statistics),
    )


def _speculation(statistics: dict[str, object]) -> dict[str, int | None]:
    if "speculation" not in statistics:
        return {"hits": None, "misses": None}
    counters = _counters(statistics, "speculation")
    return {"hits": counters["hits"], "misses": counters["misses"]}


def _counters(statistics: dict[str, object], direction: str) -> dict[str, int]:
    counters = statistics[direction]
    assert isinstance(counters, dict)
    return counters
