"""CUDA_VISIBLE_DEVICES says which devices a program has, as it does on a real machine."""

from __future__ import annotations

import pytest

from pipellm.errors import UserError
from pipellm.gpu.emulated.visible_devices import refuse_other_machines

from .conftest import Run

# Read anew until the devices are first used, so one process can try many values. PyTorch has a
# reader of its own, for NVML; it does not know how many devices there are.
AS_PYTORCH_READS_IT = """
    import os, torch
    from hypothesis import given, settings, strategies as st

    number = st.from_regex("[ ]?[+]?[0-3]{1,2}[gG ]?", fullmatch=True)
    parts = st.one_of(st.integers(-2, 3).map(str), number,
                      st.sampled_from(["", " ", "g", "NoDevFiles"]))

    @settings(max_examples=300, deadline=None, database=None)
    @given(st.lists(parts, max_size=4).map(",".join))
    def equal(value):
        os.environ["CUDA_VISIBLE_DEVICES"] = value
        visible = []
        for number in torch.cuda._parse_visible_devices():
            if number >= 2:
                break
            visible.append(number)
        assert torch.cuda.device_count() == len(visible), value
        assert torch.cuda.is_available() == bool(visible)

    equal()
    del os.environ["CUDA_VISIBLE_DEVICES"]
    assert torch.cuda.device_count() == 2
"""


def test_it_is_read_as_pytorch_reads_it(run_program: Run) -> None:
    done = run_program(AS_PYTORCH_READS_IT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("variable", ["0", "1"])
def test_one_of_two_devices_is_the_first(run_program: Run, variable: str) -> None:
    program = """
        import torch
        assert torch.cuda.device_count() == 1
        assert torch.ones(3, device="cuda:0").sum().item() == 3
        assert len(torch.cuda.default_generators) == 1
        try:
            torch.ones(3, device="cuda:1")
        except torch.AcceleratorError as error:
            print(error)
    """
    done = run_program(program, environment={"CUDA_VISIBLE_DEVICES": variable})
    assert done.returncode == 0, done.stderr
    assert "invalid device ordinal" in done.stdout


@pytest.mark.parametrize("variable", ["", "-1", "NoDevFiles"])
def test_without_visible_devices_there_is_no_gpu(run_program: Run, variable: str) -> None:
    program = """
        import torch
        assert not torch.cuda.is_available() and torch.cuda.device_count() == 0
        assert not torch.accelerator.is_available()
        assert torch.ones(3).sum().item() == 3
        try:
            torch.ones(3).cuda()
        except RuntimeError as error:
            print(error)
    """
    done = run_program(program, environment={"CUDA_VISIBLE_DEVICES": variable})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "No CUDA GPUs are available\n"


def test_the_first_use_settles_it(run_program: Run) -> None:
    program = """
        import os, torch
        os.environ["CUDA_VISIBLE_DEVICES"] = "1"  # as Ray does, after torch was imported
        torch.zeros(1, device="cuda")
        os.environ["CUDA_VISIBLE_DEVICES"] = "0,1"
        assert torch.cuda.device_count() == torch.accelerator.device_count() == 1
    """
    done = run_program(program)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("value", [None, "", "-1", "NoDevFiles", "0", "1,7", " 1"])
def test_a_value_for_this_machine(value: str | None) -> None:
    refuse_other_machines(value, 2)


@pytest.mark.parametrize("value", ["2", "3,0", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "MIG-1"])
def test_a_value_for_another_machine_is_refused_in_one_line(value: str) -> None:
    with pytest.raises(UserError, match=r"0 to 1 and no UUIDs.*unset it") as error:
        refuse_other_machines(value, 2)
    assert "\n" not in str(error.value)
