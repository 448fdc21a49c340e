"""PyTorch's own operator tests, a sample of `python -m tests.gpu.opinfo`.

In processes of their own: PyTorch's test modules change global settings when they are imported.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Run

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_values_and_gradients_are_the_cpus(run_program: Run, tmp_path: Path) -> None:
    counts = tmp_path / "counts.json"
    program = f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from tests.gpu.opinfo import main
        sys.exit(main(["--every", "30", "--json", {str(counts)!r}]))
    """
    done = run_program(program, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    tally = json.loads(counts.read_text())
    assert tally["differences"] == []
    assert tally["values equal"] > 800
    assert tally["gradients equal"] > 100


@pytest.mark.parametrize("wrong", ["value", "gradient"])
def test_an_operator_that_differs_is_told(run_program: Run, wrong: str) -> None:
    program = f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        import torch
        from tests.gpu import opinfo
        add = next(op for op in opinfo.op_db if op.name == "add")
        right = add.op

        def wrong(x, *args, **kwargs):
            bias = 1 if {wrong!r} == "value" else (x - x.detach()).sum()
            return right(x, *args, **kwargs) + (bias if x.is_cuda else 0)

        add.op = wrong
        sys.exit(opinfo.main(["add"]))
    """
    done = run_program(program)
    assert done.returncode == 1, done.stderr
    assert f"{wrong}s: " in done.stdout
