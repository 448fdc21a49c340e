"""The torch backend's library: compiled on first use against the installed torch, and cached.

A compiled backend belongs to one version of torch, so it cannot be shipped. The sources are beside
this file, in `backend/`; all of them make one translation unit, because nearly all of the time goes
into torch's headers: that way they are read once (10 to 15 s on one core).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from pipellm.errors import UserError

SOURCES = Path(__file__).parent / "backend"
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++20", "-O2", "-fPIC", "-shared", "-fvisibility=hidden")

_BUILD_PREFIX = "build-"


def backend_library() -> Path:
    """The backend for this process's torch; builds it if the cache has none.

    Raises UserError where it cannot be built: a CUDA build of torch, no compiler, a compiler that
    fails, a cache folder that cannot be written or is full.
    """
    _refuse_gpu_builds()
    recipe = Recipe.of_this_machine()
    folder = cache_folder()
    library = folder / f"torch_backend-{torch.__version__}-{recipe.digest}.so"
    if not library.exists():
        with _writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder):
                if not library.exists():  # another process may have built it meanwhile
                    _build(recipe, library)
    return library


def cache_folder() -> Path:
    """`$PIPELLM_CACHE`, or `pipellm` in the user's cache folder. It need not exist yet.

    Raises UserError for a user without a home.
    """
    if own := os.environ.get("PIPELLM_CACHE"):
        return Path(own).absolute()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).absolute() / "pipellm"
    try:
        return Path.home() / ".cache" / "pipellm"
    except RuntimeError as error:
        raise UserError("there is no home folder: name a cache folder in PIPELLM_CACHE") from error


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
            include=(SOURCES, _driver_api().parent),
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
    """`driver_api.h`: beside the sources where PipeLLM is installed, else in the source tree."""
    installed = SOURCES / "driver_api.h"
    if installed.exists():
        return installed
    return Path(__file__).parents[4] / "native" / "driver_api.h"


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    """What goes wrong with the cache folder, as the user's errors."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        problem = "is full" if full else f"cannot be written ({error.strerror})"
        raise UserError(
            f"the cache folder {folder} {problem}: make room there, "
            "or name another folder in PIPELLM_CACHE"
        ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One build at a time. The lock is the folder itself, so there is no lock file to leave behind,
    and it ends with its holder, however that ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _build(recipe: Recipe, library: Path) -> None:
    """Compiles to a temporary folder and renames, so that a library in the cache is a whole one."""
    folder = library.parent
    for left_by_a_killed_build in folder.glob(f"{_BUILD_PREFIX}*"):
        shutil.rmtree(left_by_a_killed_build, ignore_errors=True)
    print(
        f"pipellm: building the emulated GPU for torch {torch.__version__.split('+')[0]} "
        "(first use, about 20 s)…",
        file=sys.stderr,
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix=_BUILD_PREFIX, dir=folder) as name:
        scratch = Path(name)
        unit, output = scratch / "backend.cpp", scratch / "backend.so"
        unit.write_text(recipe.unit())
        compilation = subprocess.run(
            recipe.command(unit, output),
            env={**os.environ, "TMPDIR": name},  # the compiler's own scratch files go with ours
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if compilation.returncode != 0:
            _raise_for(compilation.stdout, library.with_suffix(".log"))
        output.rename(library)
    library.with_suffix(".log").unlink(missing_ok=True)


def _raise_for(output: bytes, log: Path) -> None:
    if os.strerror(errno.ENOSPC).encode() in output:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    log.write_bytes(output)
    raise UserError(f"the emulated GPU could not be compiled; the compiler's messages are in {log}")
