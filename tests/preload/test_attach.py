"""`pipellm run --attach cudart`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipellm import UserError
from pipellm.attach import cudart
from pipellm.settings import Settings


def pipellm_run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "pipellm", "run", "--quiet", "--gpu", "own", "--attach"]
    return subprocess.run(
        [*run, *map(str, command)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


# It uses OpenSSL: where nothing does, the run warns that nothing was attached to it.
LOADED = "import ssl; print('pipellm_cudart' in open('/proc/self/maps').read())"


@pytest.mark.parametrize("attachments", ["cudart", "libcrypto,cudart"])
def test_the_program_and_its_children_have_the_library_first(attachments: str) -> None:
    children = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    result = pipellm_run(attachments, "--", sys.executable, "-c", children, LOADED)
    assert (result.stdout, result.stderr, result.returncode) == ("True\n", "", 0)


def test_what_else_is_preloaded_stays(tmp_path: Path) -> None:
    other = tmp_path / "other.so"
    (tmp_path / "other.c").write_text("int other = 1;\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", other, tmp_path / "other.c"], check=True)
    source = "import os; print(os.environ['LD_PRELOAD'])"
    command = ("cudart", "--", sys.executable, "-c", source)
    result = pipellm_run(*command, LD_PRELOAD=str(other))
    assert result.stdout == f"{cudart.MODULE}:{other}\n"


def test_it_is_attached_once_however_often_it_is_asked_for() -> None:
    environment = cudart.program_environment({})
    assert cudart.program_environment(environment) == environment


def test_an_emulated_gpu_has_no_cuda_runtime() -> None:
    with pytest.raises(UserError, match="add --gpu own"):
        Settings(attach="cudart")
    Settings(gpu="own", attach="libcrypto,cudart")
    with pytest.raises(UserError, match="unknown attachment 'cudrt'"):
        Settings(gpu="own", attach="libcrypto,cudrt")


def test_it_cannot_be_attached_to_a_process_that_runs() -> None:
    with pytest.raises(UserError, match="only when a program starts"):
        cudart.require()


def test_a_library_that_is_missing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cudart, "MODULE", tmp_path / "missing.so")
    with pytest.raises(UserError, match="is missing; install PipeLLM again"):
        cudart.program_environment({})
