"""Records the traces in `data` anew: FlexGen, PEFT and vLLM, as `examples` runs them but shorter.

    python -m tests.trace.record [NAME ...]

Takes a few minutes. Models come from `build`, and are made there if they are missing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipellm.trace.file import load, save

DATA = Path(__file__).parent / "data"
ROOT = Path(__file__).parents[2]
PYTHON = os.path.relpath(sys.executable, ROOT)  # a trace tells nobody where it was made


def flexgen(scratch: Path) -> tuple[list[str], dict[str, str]]:
    """OPT-125M's shapes, all weights in pinned host memory: warm-up, then six tokens."""
    from examples.flexgen import model
    from examples.flexgen.mode import WEIGHTS

    made = model.made(ROOT / "build" / "flexgen", print)
    command = [
        *("-m", "flexgen.flex_opt", "--model", model.NAME, "--path", relative(made.weights)),
        *WEIGHTS.arguments,
        *("--gpu-batch-size", "4", "--prompt-len", "8", "--gen-len", "6"),
        *("--offload-dir", str(scratch / "offload"), "--log-file", str(scratch / "log")),
    ]
    return command, {"HF_HUB_CACHE": str(made.hub)}


def peft(scratch: Path) -> tuple[list[str], dict[str, str]]:
    """LoRA on an offloaded base model of six layers: five steps."""
    from examples.peft import model

    made = model.made(ROOT / "build" / "peft")
    paths = [relative(made.checkpoint), relative(made.text), str(scratch / "adapter")]
    return ["-m", "examples.peft.finetune", *paths, "--steps", "5"], {}


def vllm(scratch: Path) -> tuple[list[str], dict[str, str]]:
    """Eight users and a KV cache for less than half of what they say: three turns."""
    from examples.vllm import model

    made = model.made(ROOT / "build" / "vllm")
    return ["-m", "examples.vllm.generate", relative(made)], {}


PROGRAMS: dict[str, Callable[[Path], tuple[list[str], dict[str, str]]]] = {
    "flexgen": flexgen,
    "peft": peft,
    "vllm": vllm,
}
POLICY = {"vllm": "pipelined"}
"""Where it is not `off`: vLLM offloads its cache only where PipeLLM does something."""


def relative(path: Path) -> str:
    return os.path.relpath(path, ROOT)


def record(name: str) -> Path:
    """Records one of PROGRAMS."""
    target = DATA / f"{name}.trace"
    with tempfile.TemporaryDirectory() as scratch:
        os.symlink(scratch, link := ROOT / "build" / "scratch")
        try:
            command, environment = PROGRAMS[name](Path("build/scratch"))
            subprocess.run(
                [
                    *(sys.executable, "-m", "pipellm", "trace", "record", "-o", str(target)),
                    *("--policy", POLICY.get(name, "off"), "--", PYTHON, *command),
                ],
                cwd=ROOT,
                env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | environment,
                check=True,
            )
        finally:
            link.unlink()
    _forget_places(target)
    return target


def _forget_places(target: Path) -> None:
    """Children are started by absolute paths."""
    recording = load(target)
    traces = tuple(
        replace(trace, argv=tuple(argument.replace(f"{ROOT}/", "") for argument in trace.argv))
        for trace in recording.traces
    )
    save(target, replace(recording, traces=traces))


def main() -> None:
    for name in sys.argv[1:] or PROGRAMS:
        target = record(name)
        print(f"{relative(target)}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
