"""Attaching happens once, right after torch's module body, and shows nowhere else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipellm.attach.launch import BOOTSTRAP, program_environment
from pipellm.settings import Settings
from tests.attach.conftest import World


@pytest.mark.parametrize(
    "use",
    [
        "import torch",
        "from torch import BODY_RAN",
        "import torch.nn",
        "from torch import nn",
        "import importlib; importlib.import_module('torch')",
        "import importlib; importlib.import_module('torch.nn')",
        "import importlib.util; importlib.util.find_spec('torch'); import torch",
        "import threading; t = threading.Thread(target=__import__, args=['torch']); "
        "t.start(); t.join()",
        "import torch, importlib; importlib.reload(torch)",
    ],
)
def test_every_way_to_import_torch_attaches_once(world: World, use: str) -> None:
    world.write("site/torch/nn.py", "")
    result = world.python(use)
    assert (result.returncode, result.stderr) == (0, "")
    (installed,) = world.installed()
    assert installed["body_ran"]


def test_many_threads_that_import_torch_attach_once(world: World) -> None:
    result = world.python(
        """
import threading
threads = [threading.Thread(target=__import__, args=["torch"]) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    )
    assert result.returncode == 0
    assert len(world.installed()) == 1


def test_a_process_without_torch_imports_nothing_of_pipellm(world: World) -> None:
    result = world.python("import sys; print([m for m in sys.modules if m.startswith('pipellm')])")
    assert result.stdout == "['pipellm.gpu.emulated']\n"  # the stub's
    assert world.report()["processes"] == []


def test_torch_looks_as_if_nobody_had_been_there(world: World) -> None:
    source = """
import importlib.util, sys
spec = importlib.util.find_spec("torch")
print(type(spec.loader).__name__, spec.origin, spec.loader.get_filename("torch"))
import torch
print(type(torch.__loader__).__name__, vars(torch.__loader__))
print([finder for finder in sys.meta_path if "Torch" in repr(finder)])
"""
    program = world.write("program.py", source)
    attached = world.run(sys.executable, program)
    assert attached.returncode == 0, attached.stderr
    loader, there, found = attached.stdout.splitlines()
    origin = world.site / "torch" / "__init__.py"
    assert loader == f"SourceFileLoader {origin} {origin}"
    assert there == f"SourceFileLoader { {'name': 'torch', 'path': str(origin)} }"
    assert found == "[]"


def test_metadata_and_absence_of_torch_are_found_out_as_ever(world: World) -> None:
    world.write(
        "site/torch-9.9.dist-info/METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 9.9"
    )
    (world.site / "torch" / "__init__.py").unlink()
    (world.site / "torch").rmdir()
    result = world.run(
        *(sys.executable, "-S", "-c"),
        """
import os, sys, runpy
runpy.run_path(os.environ["PYTHONPATH"].split(":")[0] + "/sitecustomize.py")
import importlib.metadata, importlib.util
print(importlib.metadata.version("torch"), importlib.util.find_spec("torch"))
try:
    import torch
except ModuleNotFoundError as error:
    print(error.name)
""",
    )
    assert result.stdout == "9.9 None\ntorch\n", result.stderr


def test_a_torch_that_fails_to_import_may_be_tried_again(world: World) -> None:
    world.write(
        "site/torch/__init__.py", "import os\nif 'BAD' in os.environ: 1 / 0\nBODY_RAN = True"
    )
    result = world.python(
        """
import os
os.environ["BAD"] = "1"
try:
    import torch
except ZeroDivisionError:
    print("failed")
del os.environ["BAD"]
import torch
torch.copy(1)
"""
    )
    assert (result.stdout, result.returncode) == ("failed\n", 0)
    assert len(world.installed()) == 1


def test_another_import_hook_that_looks_through_ours(world: World) -> None:
    result = world.python(
        """
import sys, importlib.util
class Nosy:
    busy = False
    def find_spec(self, name, path=None, target=None):
        if self.busy: return None
        self.busy = True
        try:
            return importlib.util.find_spec(name)
        finally:
            self.busy = False
sys.meta_path.insert(0, Nosy())
sys.meta_path.append(Nosy())
import torch
torch.copy(1)
"""
    )
    assert result.returncode == 0, result.stderr
    assert len(world.installed()) == 1


def test_an_existing_sitecustomize_still_runs(world: World) -> None:
    result = world.python(
        "import sys, sitecustomize; print(sys.existing_sitecustomize_ran, sitecustomize.__file__)"
    )
    assert result.stdout == f"True {world.site / 'sitecustomize.py'}\n"


def test_a_failing_sitecustomize_fails_as_ever_and_pipellm_attaches_all_the_same(
    world: World,
) -> None:
    stub = (world.site / "sitecustomize.py").read_text()
    world.write("site/sitecustomize.py", stub + "\nraise RuntimeError('mine')")
    result = world.python("import torch; torch.copy(1)")
    assert result.returncode == 0
    assert "Error in sitecustomize" in result.stderr
    assert "RuntimeError: mine" in result.stderr


def test_a_sitecustomize_that_imports_torch(world: World) -> None:
    stub = (world.site / "sitecustomize.py").read_text()
    world.write("site/sitecustomize.py", stub + "\nimport torch")
    assert world.python("import torch; torch.copy(1)").returncode == 0
    assert len(world.installed()) == 1


def test_a_launcher_below_a_launcher(world: World) -> None:
    result = world.run(*world.pipellm_run([sys.executable, "-c", "import torch; torch.copy(1)"]))
    assert result.returncode == 0, result.stderr
    assert len(world.installed()) == 1


def test_an_empty_python_path_does_not_become_the_current_directory() -> None:
    for inherited in ({}, {"PYTHONPATH": ""}):
        environment = program_environment(Settings(), Path("/stats"), inherited)
        assert environment["PYTHONPATH"] == str(BOOTSTRAP)


DEVICE_THAT_FAILS = """
import sys
def install(settings, statistics):
    {failure}
sys.modules["pipellm.gpu.emulated"].install = install
"""


@pytest.mark.parametrize(
    ("failure", "status", "last_line"),
    [
        (
            "from pipellm.errors import UserError; raise UserError('no compiler; install g++')",
            2,
            "pipellm: no compiler; install g++",
        ),
        ("1 / 0", 1, "pipellm: could not attach to torch; this is a fault of PipeLLM's"),
    ],
)
@pytest.mark.parametrize("thread", [False, True])
def test_a_program_that_cannot_be_attached_to_ends_before_it_does_anything(
    world: World, failure: str, status: int, last_line: str, thread: bool
) -> None:
    stub = (world.site / "sitecustomize.py").read_text()
    world.write("site/sitecustomize.py", stub + DEVICE_THAT_FAILS.format(failure=failure))
    world.write("use.py", "try:\n    import torch\nexcept BaseException:\n    pass\nprint('on')")
    start = "import threading; t = threading.Thread(target=__import__, args=['use']); t.start()"
    result = world.python(start if thread else "print('before'); import use")
    assert result.returncode == status
    assert result.stdout == ("" if thread else "before\n")
    assert result.stderr.splitlines()[-1] == last_line
    assert len(result.stderr.splitlines()) == 1 or status == 1
    assert world.report()["processes"] == []
    assert world.temporary_files() == []
