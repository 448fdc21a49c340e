"""The torch backend's library: compiled on first use against the installed torch, and cached.

A compiled backend belongs to one version of torch, so it cannot be shipped. The sources are beside
this file, in `backend/`; all of them make one translation unit, because nearly all of the time goes
into torch's headers: that way they are read once (10 to 15 s on one core).
"""

from __future__ import annotations

import errno
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from pipellm.errors import UserError
from pipellm.gpu.emulated.cache import Cache

SOURCES = Path(__file__).parent / "backend"
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++20", "-O2", "-fPIC", "-shared", "-fvisibility=hidden")


def backend_library() -> Path:
    """The backend for this process's torch; builds it if the cache has none.

    Raises UserError where it cannot be built: a CUDA build of torch, no compiler, a compiler that
    fails, a cache folder that cannot be written, is full, or can be written by others.
    """
    _refuse_gpu_builds()
    recipe = Recipe.of_this_machine()
    cache = Cache.of_this_user()
    name = f"torch_backend-{torch.__version__}-{recipe.digest}"
    if (library := cache.find(name)) is not None:
        return library
    with cache.changing():
        # Another process may have built it meanwhile.
        return cache.find(name) or _build(recipe, cache, name)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what the compiler will make."""

    compiler: tuple[str, ...]
    flags: tuple[str, ...]
    include: tuple[Path, ...]
    sources: tuple[Path, ...]

    @classmethod
    def of_this_machine(cls) -> Recipe:
        return cls(
            compiler=_compiler(),
            flags=(*FLAGS, f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"),
            include=(SOURCES, _driver_api().parents[1]),
            sources=tuple(sorted(SOURCES.glob("*.cpp"))),
        )

    @cached_property
    def digest(self) -> str:
        digest = hashlib.sha256()
        program = Path(shutil.which(self.compiler[0]) or self.compiler[0]).resolve()
        size_and_date = (program.stat().st_size, program.stat().st_mtime_ns)
        facts = (torch.version.git_version, self.compiler, program, size_and_date, self.flags)
        digest.update(repr(facts).encode())
        for source in (*self.sources, *sorted(SOURCES.glob("*.h")), _driver_api()):
            digest.update(f"{source.name}\0".encode() + source.read_bytes() + b"\0")
        return digest.hexdigest()[:16]

    def unit(self) -> str:
        """The one translation unit."""
        return "".join(f'#include "{source.name}"\n' for source in self.sources)

    def command(self, unit: Path, output: Path) -> list[str]:
        home = Path(torch.__file__).parent
        system = (home / "include", home / "include/torch/csrc/api/include")
        return [
            *self.compiler,
            *self.flags,
            *(f"-I{folder}" for folder in self.include),
            # Torch's warnings are not ours.
            *(argument for folder in system for argument in ("-isystem", str(folder))),
            str(unit),
            "-o",
            str(output),
            f"-L{home / 'lib'}",
            "-ltorch_cpu",
            "-lc10",
        ]


def _refuse_gpu_builds() -> None:
    """The emulated GPU lives where a CUDA build of torch has its own kernels."""
    home = Path(torch.__file__).parent
    of_gpu = torch.version.cuda is not None or torch.version.hip is not None
    if of_gpu or (home / "lib/libtorch_cuda.so").exists():
        raise UserError(
            f"torch {torch.__version__} is a GPU build, and the emulated GPU needs a CPU-only one: "
            "to use this machine's own GPU, add --gpu own --attach libcrypto; to emulate one, "
            f"install the CPU build of torch {torch.__version__.split('+')[0]}"
        )


def _compiler() -> tuple[str, ...]:
    if chosen := os.environ.get("CXX"):
        command = tuple(shlex.split(chosen))
        if command and shutil.which(command[0]):
            return command
        raise UserError(f"the C++ compiler {chosen!r}, which CXX names, is not there")
    for name in COMPILERS:
        if shutil.which(name):
            return (name,)
    raise UserError(
        "the emulated GPU is compiled on first use, and no C++ compiler was found: "
        "install g++ 11 or clang++ 14, or later, or name one in CXX"
    )


def _driver_api() -> Path:
    """`link/driver_api.h`: in the sources' folder where PipeLLM is installed, else in native/."""
    installed = SOURCES / "link" / "driver_api.h"
    if installed.exists():
        return installed
    return Path(__file__).parents[4] / "native" / "link" / "driver_api.h"


def _build(recipe: Recipe, cache: Cache, name: str) -> Path:
    """Compiles to a temporary folder and renames, so that a library in the cache is a whole one."""
    print(
        f"pipellm: building the emulated GPU for torch {torch.__version__.split('+')[0]} "
        "(first use, about 20 s)…",
        file=sys.stderr,
        flush=True,
    )
    log = cache.path / f"{name}.log"
    with cache.scratch() as scratch:
        unit, output = scratch / "backend.cpp", scratch / "backend.so"
        unit.write_text(recipe.unit())
        compilation = subprocess.run(
            recipe.command(unit, output),
            # The compiler's own scratch files go with ours.
            env={**os.environ, "TMPDIR": str(scratch)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if compilation.returncode != 0:
            _raise_for(compilation.stdout, log)
        library = cache.keep(name, output)
    log.unlink(missing_ok=True)
    return library


def _raise_for(output: bytes, log: Path) -> None:
    if os.strerror(errno.ENOSPC).encode() in output:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    log.write_bytes(output)
    raise UserError(f"the emulated GPU could not be compiled; the compiler's messages are in {log}")
