"""PyTorch's own operator tests, a sample of `python -m tests.gpu.opinfo`.

In a process of its own: PyTorch's test modules change global settings when they are imported.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from .fork_server import ForkServer

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]

# All in one process: it takes a core 6 s to import PyTorch's test modules.
PROGRAM = f"""
import contextlib, io, json, sys
sys.path.insert(0, {str(ROOT)!r})
from tests.gpu import opinfo

def compared(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = opinfo.main(list(arguments))
    return dict(status=status, said=said.getvalue())

results = dict(sample=compared("--every", "30", "--json", "counts.json"))
results["sample"]["counts"] = json.load(open("counts.json"))
add = next(op for op in opinfo.op_db if op.name == "add")
right = add.op
for wrong in "value", "gradient":
    def different(x, *args, **kwargs):
        bias = 1 if wrong == "value" else (x - x.detach()).sum()
        return right(x, *args, **kwargs) + (bias if x.is_cuda else 0)

    add.op = different
    results[wrong] = compared("add")
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results(
    fake_driver: Path, fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("opinfo")
    program = folder / "program.py"
    program.write_text(PROGRAM)
    done = fork_server.run(program, folder, os.environ, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_values_and_gradients_are_the_cpus(results: dict[str, Any]) -> None:
    sample = results["sample"]
    assert sample["status"] == 0, sample["said"]
    assert sample["counts"]["differences"] == []
    assert sample["counts"]["values equal"] > 800
    assert sample["counts"]["gradients equal"] > 100


@pytest.mark.parametrize("wrong", ["value", "gradient"])
def test_an_operator_that_differs_is_told(results: dict[str, Any], wrong: str) -> None:
    assert results[wrong]["status"] == 1
    assert f"{wrong}s: " in results[wrong]["said"]
