"""What tests compile: once, by whichever process wants it first, and again only what changed."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
BUILD = REPOSITORY / "build" / "tests"


def with_cmake(name: str, source: str, *options: str, targets: str = "all") -> Path:
    """The folder build/tests/`name`, with the `targets` of the project in the folder `source`."""
    cmake = shutil.which("cmake")
    assert cmake, "cmake comes with `make setup`"
    with _alone(name) as folder:
        configure = [cmake, "-S", str(REPOSITORY / source), "-B", str(folder), *options]
        build = [cmake, "--build", str(folder), "--parallel", "2", "--target", *targets.split()]
        for command in (configure, build):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


@contextmanager
def _alone(name: str) -> Iterator[Path]:
    name = name.replace(",", "-")  # a comma in a path has a meaning for the linker
    folder = BUILD / name
    folder.mkdir(parents=True, exist_ok=True)
    with open(BUILD / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
