"""The backend is built once, whole or not at all, and says in one line why it cannot be."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pipellm.errors import UserError
from pipellm.gpu.emulated import build
from pipellm.gpu.emulated.cache import Cache

BUILD = "from pipellm.gpu.emulated.build import backend_library; print(backend_library())"

COMPILER = """#!/bin/sh
echo called >> {calls}
{body}
while [ "$1" != -o ]; do shift; done
{after}
echo library > "$2"
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("PIPELLM_CACHE", str(folder))
    return folder


class FakeCompiler:
    """A compiler that makes a text file, and does before and after what a test wants."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.log = folder / "compiler", folder / "calls"
        monkeypatch.setenv("CXX", str(self.path))
        self.does()

    def does(self, body: str = "", after: str = "") -> None:
        self.path.write_text(COMPILER.format(calls=self.log, body=body, after=after))
        self.path.chmod(0o755)

    @property
    def calls(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCompiler:
    return FakeCompiler(tmp_path, monkeypatch)


def start_build() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", BUILD], stdout=subprocess.PIPE, text=True)


@pytest.mark.long
def test_our_code_compiles_without_a_warning(tmp_path: Path) -> None:
    recipe = build.Recipe.of_this_machine()
    unit = tmp_path / "backend.cpp"
    unit.write_text(recipe.unit())
    strict = [*recipe.command(unit, tmp_path / "none"), "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*strict, "-fsyntax-only"], check=True)


def test_it_is_built_once(
    cache: Path, compiler: FakeCompiler, capfd: pytest.CaptureFixture[str]
) -> None:
    library = build.backend_library()
    assert library.read_text() == "library\n"
    assert build.backend_library() == library
    assert compiler.calls == 1
    assert list(cache.iterdir()) == [library]
    assert capfd.readouterr().err == (
        f"pipellm: building the emulated GPU for torch {torch.__version__.split('+')[0]} "
        "(first use, about 20 s)…\n"
    )


def test_another_compiler_or_torch_means_another_library(
    cache: Path, compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build.backend_library()
    monkeypatch.setattr(torch.version, "git_version", "another")
    second = build.backend_library()
    compiler.does(body="# another compiler")
    third = build.backend_library()
    assert len({first, second, third}) == 3


def test_two_processes_at_once_build_once(cache: Path, compiler: FakeCompiler) -> None:
    compiler.does(body="sleep 1")
    builds = [start_build(), start_build()]
    libraries = {process.communicate()[0] for process in builds}
    assert [process.returncode for process in builds] == [0, 0]
    assert len(libraries) == 1
    assert compiler.calls == 1


def test_a_killed_build_leaves_nothing_that_counts(cache: Path, compiler: FakeCompiler) -> None:
    compiler.does(after='echo half > "$2"; sleep 60')
    process = start_build()
    while compiler.calls == 0:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(cache.glob("*.so"))
    compiler.does()
    library = build.backend_library()
    assert list(cache.iterdir()) == [library]


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "PIPELLM_CACHE", "XDG_CACHE_HOME":
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert Cache.of_this_user().path == Path("/home/someone/.cache/pipellm")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert Cache.of_this_user().path == Path("/var/cache/pipellm")
    monkeypatch.setenv("PIPELLM_CACHE", "/opt/cache")
    assert Cache.of_this_user().path == Path("/opt/cache")


def test_only_what_killed_builds_have_left_is_removed(cache: Path, compiler: FakeCompiler) -> None:
    compiler.does(after='echo half > "$2"; sleep 60')
    process = start_build()
    while compiler.calls == 0:
        time.sleep(0.01)
    process.kill()
    process.wait()
    (left,) = cache.iterdir()
    assert (left / "backend.cpp").exists()
    mine = [cache / "build-release" / "mine", cache / f"{left.name[:-8]}-of-mine" / "mine"]
    for file in mine:
        file.parent.mkdir()
        file.touch()
    link = cache / f"{left.name}-elsewhere"
    link.symlink_to(left)
    compiler.does()
    library = build.backend_library()
    assert set(cache.iterdir()) == {library, link, *(file.parent for file in mine)}
    assert all(file.exists() for file in mine)


def test_a_library_that_is_not_what_was_built_is_built_again(
    cache: Path, compiler: FakeCompiler
) -> None:
    library = build.backend_library()
    library.write_text("half a lib")
    assert build.backend_library() == library
    assert library.read_text() == "library\n"
    assert compiler.calls == 2


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o000])
def test_nobody_else_may_change_what_is_built(
    cache: Path, compiler: FakeCompiler, umask: int
) -> None:
    before = os.umask(umask)
    try:
        library = build.backend_library()
        assert build.backend_library() == library
    finally:
        os.umask(before)
    assert cache.stat().st_mode & 0o777 == 0o700
    assert library.stat().st_mode & 0o777 == 0o755
    assert compiler.calls == 1


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_cache_that_others_may_write_to_is_refused(
    cache: Path, compiler: FakeCompiler, mode: int
) -> None:
    build.backend_library()
    cache.chmod(mode)
    message = user_error()
    assert f"others may write to the cache folder {cache}" in message
    assert "chmod go-w" in message
    cache.chmod(0o700)
    build.backend_library()
    assert compiler.calls == 1


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_library_that_others_may_write_to_is_built_again(
    cache: Path, compiler: FakeCompiler, mode: int
) -> None:
    build.backend_library().chmod(mode)
    assert build.backend_library().stat().st_mode & 0o777 == 0o755
    assert compiler.calls == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give files away")
def test_what_belongs_to_another_user_is_not_trusted(cache: Path, compiler: FakeCompiler) -> None:
    library = build.backend_library()
    os.chown(library, 12345, 12345)
    assert build.backend_library().stat().st_uid == 0
    assert compiler.calls == 2
    os.chown(cache, 12345, 12345)
    assert f"others may write to the cache folder {cache}" in user_error()


def user_error() -> str:
    with pytest.raises(UserError) as error:
        build.backend_library()
    message = str(error.value)
    assert "\n" not in message
    return message


def test_no_compiler(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert "no C++ compiler was found: install g++" in user_error()
    monkeypatch.setenv("CXX", "no-such-compiler -m64")
    assert "'no-such-compiler -m64', which CXX names, is not there" in user_error()
    assert not cache.exists()


def test_a_compiler_that_fails(cache: Path, compiler: FakeCompiler) -> None:
    compiler.does(body="echo the real reason >&2; exit 1")
    message = user_error()
    (log,) = cache.iterdir()
    assert str(log) in message
    assert log.read_text() == "the real reason\n"
    compiler.does(body="# repaired")
    library = build.backend_library()
    assert library in cache.iterdir()


@pytest.mark.parametrize("kind", ["cuda", "hip"])
def test_a_gpu_build_of_torch(
    cache: Path, compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(torch.version, kind, "13.0")
    message = user_error()
    assert f"torch {torch.__version__} is a GPU build" in message
    assert "--gpu own --attach libcrypto" in message
    assert "install the CPU build" in message
    assert compiler.calls == 0


def test_a_cache_that_cannot_be_written(
    cache: Path, compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_text("a file where a folder should be")
    message = user_error()
    assert f"the cache folder {cache} cannot be written" in message
    assert "PIPELLM_CACHE" in message
    monkeypatch.setenv("PIPELLM_CACHE", "/proc/self/cache")
    assert "the cache folder /proc/self/cache cannot be written" in user_error()
    assert compiler.calls == 0


def test_a_full_disk(cache: Path, compiler: FakeCompiler) -> None:
    compiler.does(body="echo 'cannot write: No space left on device' >&2; exit 1")
    assert f"the cache folder {cache} is full: make room there" in user_error()
    assert not list(cache.iterdir())


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs to mount")
def test_a_disk_that_really_is_full(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    # The compiler is real; what it compiles is as large as the backend, and quickly compiled.
    monkeypatch.setattr(build.Recipe, "unit", lambda recipe: "char large[1 << 20] = {1};\n")
    cache.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", cache], check=False
    )
    if mounted.returncode != 0:
        pytest.skip("may not mount")
    try:
        assert "is full" in user_error()
        assert not list(cache.iterdir())
    finally:
        subprocess.run(["umount", cache], check=True)


def test_a_driver_of_another_version_is_refused(fake_driver: Path) -> None:
    from pipellm.gpu.emulated.cuda import install

    table = (ctypes.c_uint32 * 64)(99, 8)
    with pytest.raises(RuntimeError, match="refused its driver"):
        install(build.backend_library(), ctypes.addressof(table), [])
