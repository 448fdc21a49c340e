"""vLLM under `pipellm run`, and what it says about itself."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from examples import launch, process
from examples.launch import Crossings

UNIT = "tokens/s"

ENVIRONMENT = {"PYTHONPATH": str(process.ROOT), "OMP_NUM_THREADS": "1"}
"""Where the program is, and that few cores are here."""

# Lines by which vLLM says where it is.
_STAGES = {
    "Starting to load model": "reading the weights",
    "Creating v1 connector": "making room for the KV cache",
    '{"user": 0': "answering",
}


class OutputError(Exception):
    """The program ended well but did not print what it prints."""


@dataclass(frozen=True)
class Run:
    """One run: what it generated, how fast by its own account, and what crossed the link."""

    prompts: tuple[tuple[int, ...], ...]
    tokens: tuple[tuple[int, ...], ...]
    """Of the answer to each prompt."""
    throughput: float
    """Generated tokens per second of wall-clock time."""
    preemptions: int
    crossings: Crossings

    unit: str = UNIT


def run(
    model: Path,
    policy: str,
    profile: str,
    folder: Path,
    on_stage: Callable[[str], None] = lambda stage: None,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Run:
    """Has the users talk under one policy; `folder` is emptied and keeps the run's files.

    `arguments` go to the program, `environment` is added to ours; `on_stage` is told in words what
    vLLM is at. Raises PieceError if vLLM or PipeLLM fails, OutputError if the result is unreadable.
    """
    output, crossings = launch.run(
        _command(model, *arguments),
        policy,
        profile,
        folder,
        _reporter(on_stage),
        environment=_environment(environment),
    )
    return _read(output, crossings)


def _command(model: Path, *arguments: str) -> list[str]:
    return ["-m", "examples.vllm.generate", str(model), *arguments]


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    return {**ENVIRONMENT, **(more or {})}


def _reporter(on_stage: Callable[[str], None]) -> Callable[[str], None]:
    def on_line(line: str) -> None:
        for beginning, stage in _STAGES.items():
            if beginning in line:
                on_stage(stage)

    return on_line


def _read(output: str, crossings: Crossings) -> Run:
    said = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    if not said or "seconds" not in said[-1]:
        raise OutputError("vLLM answered nothing")
    return Run(
        prompts=tuple(tuple(line["said"]) for line in said[:-1]),
        tokens=tuple(tuple(line["answer"]) for line in said[:-1]),
        throughput=said[-1]["tokens"] / said[-1]["seconds"],
        preemptions=int(said[-1]["preemptions"]),
        crossings=crossings,
    )
