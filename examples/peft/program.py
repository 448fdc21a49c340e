"""The programs under `pipellm run`, and what they say about themselves."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from examples import launch, process
from examples.launch import Crossings
from examples.peft.model import Model

LENGTH = 8  # of a run: long enough to see that the copies are foreseen

ENVIRONMENT = {
    "PYTHONPATH": str(process.ROOT),
    # What torchrun would say to the only process there is. Port 0: any that is free.
    **{"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"},
    **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"},
}
_STAGE = re.compile(r"(step \d+: .*|generating.*)|\{'loss': '([\d.]+)'")


class OutputError(Exception):
    """A program ended well but did not print its last line."""


@dataclass(frozen=True)
class Run(Crossings):
    """One run: how fast by the program's own account, what came out, what crossed the link."""

    throughput: float
    unit: str
    losses: tuple[float, ...]  # of every step, exactly; none where nothing is trained
    tokens: dict[str, list[list[int]]]  # by way of generating; none where nothing is generated


@dataclass(frozen=True)
class Program:
    """One of the programs in this folder."""

    title: str
    module: str
    unit: str
    length: str
    """The option that says how long it runs."""
    arguments: Callable[[Model, Path], list[str]]
    """What follows the module, for a model and a folder of the run's own."""

    def run(
        self,
        of: Model,
        policy: str,
        profile: str,
        folder: Path,
        on_stage: Callable[[str], None] = lambda stage: None,
        length: int = LENGTH,
    ) -> Run:
        """Runs it under one policy; `folder` is emptied and keeps the run's files.

        `length` are steps, or tokens of each answer. `on_stage` is told in words what the program
        is at. Raises PieceError if the program or PipeLLM fails, OutputError if the result is
        unreadable.
        """

        def on_line(line: str) -> None:
            if match := _STAGE.match(line):
                on_stage(match[1] or f"loss {match[2]}")

        command = ["-m", *self.command_line(of, folder, length)]
        return self.read(*launch.run(command, policy, profile, folder, on_line, ENVIRONMENT))

    def command_line(self, of: Model, folder: Path, length: int = LENGTH) -> list[str]:
        """The module and its arguments; what it writes goes to `folder`."""
        return [self.module, *self.arguments(of, folder), self.length, str(length)]

    def read(self, output: str, crossings: Crossings) -> Run:
        """What a run printed. Raises OutputError."""
        result = _last_line(output)
        return Run(
            **asdict(crossings),
            throughput=result[f"{self.unit}_per_second"],
            unit=f"{self.unit}/s",
            losses=tuple(result.get("losses", ())),
            tokens=result.get("tokens", {}),
        )


def _training(of: Model, folder: Path) -> list[str]:
    return [str(of.checkpoint), str(of.text), str(folder / "adapter")]


ACCELERATE = Program(
    "LoRA, accelerate's hooks", "examples.peft.finetune", "samples", "--steps", _training
)
ZERO = Program(
    "LoRA, DeepSpeed ZeRO-3", "examples.peft.finetune_zero", "samples", "--steps", _training
)
GENERATE = Program(
    "generate, two adapters",
    "examples.peft.generate",
    "tokens",
    "--words",
    lambda of, folder: [str(of.checkpoint), str(of.adapters)],
)
PROGRAMS = (ACCELERATE, ZERO, GENERATE)


def _last_line(output: str) -> dict[str, Any]:
    for line in reversed(output.splitlines()):
        if line.startswith("{") and line.endswith("}"):
            try:
                result: dict[str, Any] = json.loads(line)
            except json.JSONDecodeError:  # the Trainer's own, which are Python
                continue
            return result
    raise OutputError("the program printed no line of JSON")
