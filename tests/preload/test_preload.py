"""The preload library under programs for a GPU that is not there: tests/preload/stub_cudart.h."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import compiled

SOURCES = "".join(file.read_text() for file in Path(__file__).parent.glob("scenes_*.cpp"))
SCENES = sorted(set(re.findall(r"^SCENE\((\w+)\)", SOURCES, re.MULTILINE)) - {"nothing_is_staged"})


def build(name: str, *options: str, targets: str = "all") -> Path:
    options = ("-DPIPELLM_PRELOAD_TESTS=ON", *options)
    return compiled.with_cmake(name, "native/cudart", *options, targets=targets)


@pytest.fixture(scope="session")
def built() -> Path:
    return build("preload")


def run(
    folder: Path,
    *command: str | Path,
    library: str | None = "pipellm_cudart",
    cc: str = "on",
    first: tuple[str, ...] = (),
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Runs a program with the stubs for a driver, and with `library` preloaded."""
    preload = [*first, *([] if library is None else [str(folder / f"{library}.so")])]
    return subprocess.run(
        command,
        env={
            **os.environ,
            "LD_LIBRARY_PATH": str(folder),
            "LD_PRELOAD": os.pathsep.join(preload),
            "STUB_CC": cc,
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("cc", ["on", "async"])
@pytest.mark.parametrize("scene", SCENES)
def test_a_program_sees_what_cuda_owes_it(built: Path, scene: str, cc: str) -> None:
    """Whether or not the copies that CUDA is asked for block their caller."""
    result = run(built, built / "preload_scenes", scene, cc=cc)
    assert (result.stdout, result.returncode) == ("stalls: 0\n", 0), result.stderr


@pytest.mark.parametrize(
    "scene",
    ["copies_go_on_behind_a_stream_that_is_busy", "a_stream_that_is_busy_holds_up_no_other"],
)
def test_without_it_the_caller_stalls(built: Path, scene: str) -> None:
    result = run(built, built / "preload_scenes", scene, library=None)
    assert int(result.stdout.removeprefix("stalls: ")) > 0, result.stderr


def test_without_confidential_computing_nothing_is_done(built: Path) -> None:
    result = run(built, built / "preload_scenes", "nothing_is_staged", cc="off")
    assert result.returncode == 0, result.stderr
    blind = run(built, built / "preload_scenes", "nothing_is_staged")
    assert blind.returncode == 1


@pytest.mark.parametrize("cc", ["on", "async"])
@pytest.mark.parametrize("library", ["pipellm_cudart", "pipellm_cudart_scarce"])
def test_random_programs_come_out_as_the_model_has_it(built: Path, library: str, cc: str) -> None:
    """600 here; `preload_random PROGRAMS SEED` for more (docs/hardware.md)."""
    result = run(built, built / "preload_random", "600", library=library, cc=cc)
    assert (result.stdout, result.returncode) == ("600 programs, staged: yes\n", 0), result.stderr


def test_a_runtime_that_a_module_brought_for_itself_alone_is_found(built: Path) -> None:
    """As Python opens a module that is linked with libcudart: RTLD_NEXT does not find it then."""
    source = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).run_scene(b'many_threads')"
    result = run(built, sys.executable, "-c", source, built / "preload_scenes_module.so")
    assert result.returncode == 0, result.stderr


def test_it_says_what_it_did(built: Path) -> None:
    scene = "only_large_copies_of_pinned_memory_are_staged"
    quiet = run(built, built / "preload_scenes", scene)
    assert quiet.stderr == ""
    (line,) = run(built, built / "preload_scenes", scene, PIPELLM_LOG="debug").stderr.splitlines()
    assert line == (
        "pipellm: cudart: 1 copies to the device staged (307200 bytes), 1 to the host left to a "
        "thread (307200 bytes), 8 as CUDA does them (1974272 bytes)"
    )


def test_a_program_without_cuda_runs_as_before(built: Path) -> None:
    result = run(built, sys.executable, "-c", "print('done')")
    assert (result.stdout, result.stderr) == ("done\n", "")


@pytest.mark.long
@pytest.mark.parametrize(
    ("sanitizers", "runtime"), [("thread", "libtsan.so"), ("address,undefined", "libasan.so")]
)
def test_scenes_and_random_programs_are_clean(sanitizers: str, runtime: str) -> None:
    targets = "pipellm_cudart preload_scenes preload_random nvidia-ml"
    folder = build(f"preload-{sanitizers}", f"-DPIPELLM_SANITIZE={sanitizers}", targets=targets)
    compiler = shutil.which("c++")
    assert compiler
    found = subprocess.check_output([compiler, f"-print-file-name={runtime}"], text=True).strip()
    environment = {
        "TSAN_OPTIONS": "halt_on_error=1",
        "ASAN_OPTIONS": "halt_on_error=1:detect_leaks=0",  # the stub leaks on purpose
        "UBSAN_OPTIONS": "halt_on_error=1",
    }
    for program, argument in (("random", "40"), ("scenes", "many_threads"), ("scenes", "a_reset")):
        command = (folder / f"preload_{program}", argument)
        result = run(folder, *command, first=(found,), **environment)
        assert result.returncode == 0, result.stderr[-2000:]


def test_it_brings_no_symbols_but_those_that_libcudart_has(built: Path) -> None:
    def symbols(library: Path) -> set[str]:
        nm = ["nm", "--dynamic", "--defined-only", "--format=just-symbols", str(library)]
        said = subprocess.check_output(nm, text=True)
        return {name.split("@")[0] for name in said.split()}

    ours = symbols(built / "pipellm_cudart.so")
    assert all(name.startswith("cuda") for name in ours)
    real = next(Path("/usr/local").glob("cuda*/lib*/libcudart.so.13"), None)
    if real is not None:
        assert ours <= symbols(real)
