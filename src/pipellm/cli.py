"""The command line: finds the sub-command and hands over; every UserError ends here."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from pipellm import __version__
from pipellm.attach.launch import launch
from pipellm.errors import UserError
from pipellm.gpu.emulated.profile import names
from pipellm.runtime.policy import POLICIES
from pipellm.settings import DEFAULT_GPU, DEFAULT_POLICY, DEFAULT_PROFILE, Settings

RUN_EXAMPLES = """\
examples:
  pipellm run -- python generate.py --model facebook/opt-125m
  pipellm run --policy off -- python generate.py
  pipellm run --profile h100-nvl --stats copies.json -- python -m flexgen.flex_opt
  pipellm run --gpu own --attach libcrypto -- ./native-program
  pipellm run --gpu emulated:2 -- torchrun --nproc-per-node 2 train.py

The program is not changed, and its exit status and signals are its own. Processes that it starts
are attached as well. --stats is written however the program ends.
"""


class _Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see `{self.prog} --help`)")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (without the program's name) and returns the exit status."""
    try:
        parser = _parser()
        arguments = parser.parse_args(argv)
        status: int = arguments.handler(arguments)
        return status
    except UserError as error:
        print(f"pipellm: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pipellm", description="Runs unmodified LLM programs on confidential GPUs."
    )
    parser.add_argument("--version", action="version", version=f"pipellm {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_run(commands)
    return parser


def _add_run(commands: argparse._SubParsersAction[_Parser]) -> None:
    run = commands.add_parser(
        "run",
        help="run a program with PipeLLM under it",
        description="Runs PROGRAM with PipeLLM under every Python process of it.",
        usage="pipellm run [options] -- PROGRAM [ARGUMENT ...]",
        epilog=RUN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run.add_argument(
        "--gpu",
        default=DEFAULT_GPU,
        metavar="KIND[:N]",
        help="device: `emulated`, or `emulated:N` for N of them, or `own`: the GPU that is there "
        f"(default: {DEFAULT_GPU})",
    )
    run.add_argument(
        "--profile",
        default=DEFAULT_PROFILE,
        help=f"what the device is like: {', '.join(names())}, or a TOML file "
        f"(default: {DEFAULT_PROFILE})",
    )
    policies = "; ".join(f"{policy.name}: {policy.summary}" for policy in POLICIES.values())
    run.add_argument(
        "--policy",
        default=DEFAULT_POLICY,
        help=f"how copies are protected: {policies} (default: {DEFAULT_POLICY})",
    )
    run.add_argument(
        "--attach",
        metavar="WHAT",
        help="`libcrypto`: all that the program seals through OpenSSL, as NVIDIA's driver does, "
        "is sealed by PipeLLM's provider",
    )
    run.add_argument("--stats", metavar="FILE.json", help="write statistics of all copies there")
    run.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    run.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> int:
    command: list[str] = arguments.command
    if command[:1] == ["--"]:
        command = command[1:]
    if not command:
        raise UserError("no program given; try: pipellm run -- python your_program.py")
    settings = Settings.parse(
        arguments.gpu, arguments.profile, arguments.policy, arguments.stats, arguments.attach
    )
    return launch(settings, command)
