"""Device memory has a size, and pinned memory is the driver's."""

from __future__ import annotations

import pytest
import torch

from .conftest import Run
from .emulated_gpu import MEMORY, confidential_environment

pytestmark = pytest.mark.usefixtures("gpu")


def test_running_out_raises_what_cuda_raises() -> None:
    with pytest.raises(torch.OutOfMemoryError) as error:
        torch.empty(2 * MEMORY, dtype=torch.uint8, device="cuda")
    assert isinstance(error.value, RuntimeError)
    words = str(error.value)
    assert words.startswith("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total")
    assert "total capacity of 1024.00 MiB of which" in words


def test_what_an_operator_makes_is_counted_and_limited() -> None:
    half = torch.zeros(MEMORY // 8, device="cuda")  # float32: half of the memory
    free = torch.cuda.mem_get_info()[0]
    with pytest.raises(torch.OutOfMemoryError):
        torch.cat([half, half])
    assert torch.cuda.mem_get_info()[0] == free
    del half
    assert torch.cuda.mem_get_info()[0] >= free + MEMORY // 2


def test_the_statistics_follow_allocations() -> None:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    tensor = torch.empty(1024, device="cuda")
    assert torch.cuda.memory_allocated() == before + 4096
    assert torch.accelerator.memory_allocated() == before + 4096
    del tensor
    assert torch.cuda.memory_allocated() == before
    assert torch.cuda.max_memory_allocated() == before + 4096
    assert torch.cuda.memory_reserved() == before
    free, total = torch.cuda.mem_get_info()
    assert (free, total) == (MEMORY - before, MEMORY)
    assert "CUDA memory summary" in torch.cuda.memory_summary()
    torch.cuda.empty_cache()


def test_each_device_counts_its_own() -> None:
    before = torch.cuda.memory_allocated(0), torch.cuda.memory_allocated(1)
    tensor = torch.ones(1024, device="cuda:1")
    assert torch.cuda.memory_allocated(0) == before[0]
    assert torch.cuda.memory_allocated(1) == before[1] + tensor.nbytes


def test_tensors_resize_in_place_and_their_views_see_it() -> None:
    tensor = torch.arange(4.0, device="cuda")
    tensor.resize_(1000)
    assert tensor[:4].tolist() == [0, 1, 2, 3]
    storage = tensor.untyped_storage()
    storage.resize_(0)
    storage.resize_(4000)
    tensor.fill_(1)
    assert tensor.sum().item() == 1000


def test_memory_is_pinned_on_request() -> None:
    assert torch.empty(8, pin_memory=True).is_pinned()
    assert torch.tensor([1, 2], pin_memory=True).is_pinned()
    assert torch.ones(8).pin_memory().is_pinned()
    assert torch.ones(8).pin_memory()[2:].is_pinned()
    assert not torch.ones(8).is_pinned()
    with pytest.raises(RuntimeError, match="can be pinned"):
        torch.ones(8, device="cuda").pin_memory()


def test_host_memory_can_be_registered() -> None:
    tensor, cudart = torch.ones(8), torch.cuda.cudart()
    torch.cuda.check_error(cudart.cudaHostRegister(tensor.data_ptr(), tensor.nbytes, 0))
    assert tensor.is_pinned()
    torch.cuda.check_error(cudart.cudaHostUnregister(tensor.data_ptr()))
    assert not tensor.is_pinned()


def test_under_confidential_computing_nothing_is_pinned(run_program: Run) -> None:
    program = """
        import torch
        tensor, cudart = torch.ones(8), torch.cuda.cudart()
        status = cudart.cudaHostRegister(tensor.data_ptr(), tensor.nbytes, 0)
        assert int(status) == 801, status
        assert cudart.cudaGetErrorString(status) == "operation not supported"
        pinned = torch.ones(8, pin_memory=True)
        assert not pinned.is_pinned() and not tensor.is_pinned()
        assert pinned.to("cuda", non_blocking=True).sum().item() == 8
    """
    done = run_program(program, environment=confidential_environment())
    assert done.returncode == 0, done.stderr
