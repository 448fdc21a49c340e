"""What the processes of a program left, made into one recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from pipellm.runtime.report import Process
from pipellm.settings import Settings
from pipellm.trace import tape as tape_file
from pipellm.trace.file import MOST_EVENTS
from pipellm.trace.recording import Recording
from pipellm.trace.trace import Trace

UNKNOWN = "-"


def gather(
    directory: Path,
    settings: Settings,
    command: Sequence[str],
    processes: Sequence[Process],
    exit_status: int | None,
) -> Recording | None:
    """The traces of the `processes` that left a tape in `directory`; None if none did."""
    tapes = [
        found for file in directory.glob(f"*{tape_file.SUFFIX}") if (found := tape_file.read(file))
    ]
    command_lines: Mapping[int, Sequence[str]] = {
        int(process.identity["pid"]): process.identity["argv"] for process in processes
    }
    order = list(command_lines)
    tapes.sort(key=lambda tape: order.index(tape.pid) if tape.pid in order else len(order))
    room = MOST_EVENTS
    traces: list[Trace] = []
    for tape in tapes:
        for device, steps in tape.devices.items():
            # What is left out of a file that could not be read again is its middle: it has an end.
            kept = steps if len(steps) <= room else (*steps[: max(room - 2, 0)], *steps[-2:])
            room = max(room - len(kept), 2)
            traces.append(
                Trace(
                    name=name_of(command),
                    model=model_of(command),
                    steps=kept,
                    pid=tape.pid,
                    device=device,
                    argv=tuple(command_lines.get(tape.pid, command)),
                    complete=tape.complete and len(kept) == len(steps),
                )
            )
    ran_under = {"gpu": settings.gpu, "profile": settings.profile, "policy": settings.policy}
    return Recording(tuple(command), ran_under, exit_status, tuple(traces)) if traces else None


def name_of(command: Sequence[str]) -> str:
    """The module that Python was told to run, or the script, or the program."""
    program = PurePath(command[0]).name
    if not program.startswith("python"):
        return program
    arguments = iter(command[1:])
    for argument in arguments:
        if argument == "-m":
            return next(arguments, program)
        if argument in ("-", "-c"):
            return program
        if argument in ("-W", "-X"):
            next(arguments, None)  # is what the option says
        elif not argument.startswith("-"):
            return PurePath(argument).stem
    return program


def model_of(command: Sequence[str]) -> str:
    """What the program was given as its `--model`, without the folders that it lies in."""
    for option, argument in zip(command, [*command[1:], ""], strict=True):
        name, equals, value = option.partition("=")
        if name == "--model":
            return PurePath(value if equals else argument).name or UNKNOWN
    return UNKNOWN
