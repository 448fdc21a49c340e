"""`pipellm bench`."""

from __future__ import annotations

import argparse

from pipellm.bench.contenders import CONTENDERS
from pipellm.cli.parser import Commands
from pipellm.gpu.emulated.profile import names


def add(commands: Commands) -> None:
    bench = commands.add_parser(
        "bench",
        help="replay LLM workloads under each policy, in one table",
        description="Replays what LLM programs copy and compute against the emulated GPU, in real "
        "time, under each policy. Compute and link are modelled; sealing, copying, tracking and "
        "planning are real, on this host's cores, and every byte is checked.",
        allow_abbrev=False,
    )
    bench.add_argument(
        "--workload",
        action="append",
        default=[],
        metavar="NAME",
        help="flexgen, vllm, peft or random, or one of them on one model, such as "
        "flexgen-opt-30b; may be given several times (default: all)",
    )
    bench.add_argument(
        "--trace",
        metavar="FILE",
        help="replay what `pipellm trace record` wrote, instead of the workloads",
    )
    bench.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="NAME",
        help=f"one of {', '.join(CONTENDERS)}; may be given several times "
        "(default: all). serial+libcrypto is serial under `--attach libcrypto`",
    )
    bench.add_argument(
        "--profile",
        default="scaled",
        help="`scaled`: the paper's server, so many times slower that this host has cores enough; "
        f"or {', '.join(names())}, or a TOML file (default: scaled)",
    )
    bench.add_argument(
        "--seconds",
        type=float,
        default=5.0,
        help="how long `ideal` works here at each measurement; others do as much. Less on a "
        "profile whose link costs nothing: copying would take more than ten times as long "
        "(default: %(default)s)",
    )
    bench.add_argument(
        "--repeats", type=int, default=3, help="repetitions, interleaved (default: %(default)s)"
    )
    bench.add_argument("--json", metavar="FILE", help="write machine and figures there")
    bench.add_argument("--plot", metavar="FILE.png|svg|pdf", help="draw them")
    bench.set_defaults(handler=_bench)


def _bench(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from pipellm.bench import command
    from pipellm.trace.replay import Recorded

    return command.run(
        arguments.workload,
        arguments.policy,
        arguments.profile,
        seconds=arguments.seconds,
        repeats=arguments.repeats,
        json_path=Path(arguments.json) if arguments.json else None,
        plot_path=Path(arguments.plot) if arguments.plot else None,
        recorded=Recorded(arguments.trace) if arguments.trace else None,
    )
