"""The main job: unmodified FlexGen under `pipellm run`, and what it says about itself."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from examples import launch
from examples.flexgen import model, recital
from examples.flexgen.mode import WEIGHTS, Mode
from examples.flexgen.model import Model
from examples.launch import Crossings

BATCH = 4  # FlexGen's default; it prints the first and the last row, all rows have the same prompt
PROMPT_LENGTH = 8  # the prompt's six words, padded as FlexGen pads them

MODULE = "flexgen.flex_opt"

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
class Run(Crossings):
    """One run: what it generated, how fast by its own account, and what crossed the link."""

    tokens: tuple[tuple[int, ...], ...]  # generated ids, without the prompt, of every printed row
    text: str
    decode_throughput: float  # tokens/s, all rows of the batch, the first token left out


def run(
    of: Model,
    policy: str,
    profile: str,
    words: int,
    folder: Path,
    on_stage: Callable[[str], None] = lambda stage: None,
    *,
    mode: Mode = WEIGHTS,
    options: Sequence[str] = (),
) -> Run:
    """Generates `words` tokens under one policy; `folder` is emptied and keeps the run's files.

    `on_stage` is told in words what FlexGen is at; `options` are for `pipellm run`.
    Raises PieceError if FlexGen or PipeLLM fails, OutputError if the result is unreadable.
    """

    def on_line(line: str) -> None:
        if line in _STAGES:
            on_stage(_STAGES[line])

    output, crossings = launch.run(
        ["-m", MODULE, *arguments(of, words, folder, mode)],
        policy,
        profile,
        folder,
        on_line,
        environment(of),
        options,
    )
    return read(output, crossings)


def arguments(of: Model, words: int, folder: Path, mode: Mode) -> list[str]:
    """FlexGen's own command line; what it writes goes to `folder`."""
    return [
        *("--model", model.NAME, "--path", str(of.weights), *mode.arguments),
        *("--gpu-batch-size", str(BATCH), "--prompt-len", str(PROMPT_LENGTH)),
        *("--gen-len", str(words), "--offload-dir", str(folder / "offload")),
        *("--log-file", str(folder / "flexgen.log")),
    ]


def environment(of: Model) -> dict[str, str]:
    """Where FlexGen finds the tokenizer."""
    return {"HF_HUB_CACHE": str(of.hub)}


def read(output: str, crossings: Crossings) -> Run:
    """What a run printed. Raises OutputError."""
    speed = re.search(r"^decode latency: .*decode throughput: ([\d.]+) token/s$", output, re.M)
    texts = re.findall(r"^\d+: (.*)$", output.partition("\nOutputs:\n")[2], re.M)
    if speed is None or not texts:
        raise OutputError("FlexGen printed no throughput or no text")
    prompt = recital.token_ids(recital.PROMPT)
    rows = [tuple(recital.token_ids(text)) for text in texts]
    if any(list(row[: len(prompt)]) != prompt for row in rows):
        raise OutputError(f"FlexGen's text does not begin with {recital.PROMPT!r}")
    return Run(
        **asdict(crossings),
        tokens=tuple(row[len(prompt) :] for row in rows),
        text=texts[0],
        decode_throughput=float(speed[1]),
    )
