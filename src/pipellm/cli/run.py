"""`pipellm run`: a program with PipeLLM under it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

from pipellm.attach.enabling import DIRECTORY_VARIABLE
from pipellm.attach.launch import launch
from pipellm.cli.parser import Commands
from pipellm.errors import UserError
from pipellm.gpu.emulated.profile import names
from pipellm.runtime.policy import CHOICES
from pipellm.settings import DEFAULT_GPU, DEFAULT_POLICY, DEFAULT_PROFILE, Settings

EXAMPLES = """\
examples:
  pipellm run -- python generate.py --model facebook/opt-125m
  pipellm run --policy off -- python generate.py
  pipellm run --profile h100-nvl --stats copies.json -- python -m flexgen.flex_opt
  pipellm run --gpu own --attach libcrypto -- ./native-program
  pipellm run --gpu emulated:2 -- torchrun --nproc-per-node 2 train.py

The program is not changed, and its exit status and signals are its own. Processes that it starts
are attached as well. --stats is written however the program ends (docs/statistics.md).

environment:
  PIPELLM_GPU, PIPELLM_PROFILE, PIPELLM_POLICY, PIPELLM_ATTACH, PIPELLM_STATS and
  PIPELLM_TAMPER stand for the options of these names where those are not given.
  PIPELLM_LOG=debug tells the story of every copy; PIPELLM_CACHE names the folder of
  what PipeLLM compiles and keeps (default: ~/.cache/pipellm).
"""

_OF_ONE_RUN = ("stats", "tamper")
"""Options that a run below another one does not take over from it."""


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "run",
        help="run a program with PipeLLM under it",
        description="Runs PROGRAM with PipeLLM under every Python process of it.",
        usage="pipellm run [options] -- PROGRAM [ARGUMENT ...]",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_options(parser)
    parser.set_defaults(handler=run, trace=None, before="pipellm run")


def add_options(run: argparse.ArgumentParser) -> None:
    """What `pipellm run` and `pipellm trace record` have in common."""
    run.add_argument(
        "--gpu",
        metavar="KIND[:N]",
        help="device: `emulated`, or `emulated:N` for N of them, or `own`: the GPU that is there "
        f"(default: {DEFAULT_GPU})",
    )
    run.add_argument(
        "--profile",
        help=f"what the device is like: {', '.join(names())}, or a TOML file "
        f"(default: {DEFAULT_PROFILE})",
    )
    policies = "; ".join(f"{policy.name}: {policy.summary}" for policy in CHOICES.values())
    run.add_argument(
        "--policy",
        help=f"how copies are protected: {policies} (default: {DEFAULT_POLICY})",
    )
    run.add_argument(
        "--attach",
        metavar="WHAT",
        help="`libcrypto`: all that the program seals through OpenSSL, as NVIDIA's driver does, "
        "is sealed by PipeLLM's provider; `cudart` (experimental, with --gpu own): copies of "
        "pinned memory do not wait for their stream; or both: `libcrypto,cudart`",
    )
    run.add_argument("--stats", metavar="FILE.json", help="write statistics of all copies there")
    run.add_argument(
        "--tamper",
        metavar="DIRECTION:N",
        help="see integrity at work: flips one bit of the N-th sealed message of a direction "
        "(`h2d` or `d2h`) on its way, which the other side must notice",
    )
    run.add_argument(
        "--quiet",
        action="store_true",
        help="leave out the line at the end that says what was copied",
    )
    run.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    command: list[str] = arguments.command
    if command[:1] == ["--"]:
        command = command[1:]
    if not command:
        raise UserError(f"no program given; try: {arguments.before} -- python your_program.py")
    options, variables = _with_environment(arguments, os.environ)
    try:
        settings = Settings.parse(**options, trace=arguments.trace)
    except UserError as error:
        if not variables:
            raise
        taken = ", ".join(f"{name}={os.environ[name]}" for name in variables)
        raise UserError(f"{error} (the environment has {taken})") from None
    return launch(settings, command, quiet=arguments.quiet)


def _with_environment(
    arguments: argparse.Namespace, environment: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """The options that were given, and those that stand in the environment, with the names of the
    variables that were used."""
    options: dict[str, str] = {}
    variables = []
    for name in ("gpu", "profile", "policy", "attach", "stats", "tamper"):
        variable = f"PIPELLM_{name.upper()}"
        own = not (name in _OF_ONE_RUN and DIRECTORY_VARIABLE in environment)
        if (given := getattr(arguments, name)) is not None:
            options[name] = given
        elif own and (value := environment.get(variable)):
            options[name] = value
            variables.append(variable)
    return options, variables
