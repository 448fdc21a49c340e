"""What else programs find in `torch.cuda`: tensor types, memory of others, a clock."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from .conftest import Run
from .emulated_gpu import MEMORY

pytestmark = pytest.mark.usefixtures("gpu")

cuda: Any = torch.cuda
"""Without what mypy takes a CPU build to have."""


@pytest.fixture
def x() -> torch.Tensor:
    return torch.tensor([1.0, 2.0, 3.0], device="cuda")


def test_the_old_names_of_tensor_types_make_tensors_and_know_them(x: torch.Tensor) -> None:
    assert cuda.FloatTensor(2, 3).shape == (2, 3)
    made = cuda.LongTensor([1, 2])
    assert made.is_cuda
    assert made.dtype == torch.int64
    assert made.tolist() == [1, 2]
    assert isinstance(x, cuda.FloatTensor)
    assert not isinstance(x, cuda.LongTensor)
    assert not isinstance(x.cpu(), cuda.FloatTensor)
    assert x.type() == "torch.cuda.FloatTensor"
    half: Any = torch.ones(2).type(cuda.HalfTensor)
    assert half.type() == "torch.cuda.HalfTensor"
    double: Any = torch.ones(2).type("torch.cuda.DoubleTensor")
    assert double.is_cuda


def test_a_tensor_type_can_be_the_default(run_program: Run) -> None:
    program = """
        import torch
        torch.set_default_tensor_type("torch.cuda.HalfTensor")
        assert torch.ones(2).type() == "torch.cuda.HalfTensor"
        torch.set_default_tensor_type(torch.FloatTensor)
        assert torch.ones(2).type() == "torch.FloatTensor"
    """
    done = run_program(program)
    assert done.returncode == 0, done.stderr


class Foreign:
    """Another library's array in device memory."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.__cuda_array_interface__ = tensor.__cuda_array_interface__


def test_arrays_of_other_libraries_are_the_same_memory(x: torch.Tensor) -> None:
    assert x.__cuda_array_interface__["data"] == (x.data_ptr(), False)
    seen = torch.as_tensor(Foreign(x), device="cuda")
    seen[0] = 7
    assert x.tolist() == [7, 2, 3]
    assert torch.tensor(Foreign(x), device="cuda").data_ptr() != x.data_ptr()


def test_what_the_profile_and_the_device_know_is_told() -> None:
    assert torch.cuda.clock_rate() == 1980
    free = torch.cuda.mem_get_info()[0]
    assert torch.cuda.device_memory_used() == MEMORY - free


def test_turning_off_what_never_was_on_is_nothing() -> None:
    torch.cuda.memory._record_memory_history(None)
    torch.cuda.set_sync_debug_mode(0)
    assert torch.cuda.get_sync_debug_mode() == 0
    assert not torch.cuda.tunable.is_enabled()
    assert not torch.backends.cudnn.enabled
