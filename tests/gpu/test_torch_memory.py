"""Device memory has a size, and pinned memory is the driver's."""

from __future__ import annotations

import pytest
import torch

from .conftest import Run
from .emulated_gpu import MEMORY, POLICY, confidential_environment

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


@pytest.mark.parametrize(("nbytes", "counted"), [(1, 512), (4096, 4096), (3_000_000, 3_000_320)])
def test_memory_is_counted_in_units_of_512_bytes(nbytes: int, counted: int) -> None:
    before = torch.cuda.memory_allocated()
    free = torch.cuda.mem_get_info()[0]
    tensor = torch.empty(nbytes, dtype=torch.uint8, device="cuda")
    assert torch.cuda.memory_allocated() == before + counted
    assert torch.cuda.mem_get_info()[0] == free - counted
    del tensor
    assert torch.cuda.memory_allocated() == before
    assert torch.cuda.mem_get_info()[0] == free


def test_the_statistics_have_cudas_keys_and_count() -> None:
    torch.cuda.reset_accumulated_memory_stats()
    before = torch.cuda.memory_stats()
    small = torch.empty(1000, dtype=torch.uint8, device="cuda")
    large = torch.empty(3_000_000, dtype=torch.uint8, device="cuda")
    stats = torch.cuda.memory_stats()

    def more(name: str) -> int:
        result: int = stats[f"{name}.current"] - before[f"{name}.current"]
        return result

    assert more("allocation.all") == 2
    assert more("allocated_bytes.small_pool") == 1024
    assert more("allocated_bytes.large_pool") == 3_000_320
    assert more("requested_bytes.all") == 3_001_000
    assert stats["allocation.all.allocated"] == 2
    del small, large
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(2 * MEMORY, dtype=torch.uint8, device="cuda")
    stats = torch.cuda.memory_stats()
    assert stats["allocation.all.freed"] == stats["allocation.all.allocated"] == 2
    assert stats["num_ooms"] == stats["num_alloc_retries"] == 1
    assert stats["num_device_alloc"] == stats["num_device_free"] == 2
    torch.cuda.reset_accumulated_memory_stats()
    assert torch.cuda.memory_stats()["num_ooms"] == 0


def test_a_process_has_no_more_than_the_fraction_that_it_allows_itself() -> None:
    assert torch.cuda.get_per_process_memory_fraction() == 1.0
    with pytest.raises(ValueError, match="Invalid fraction"):
        torch.cuda.set_per_process_memory_fraction(1.5)
    torch.cuda.set_per_process_memory_fraction(0.25)
    try:
        assert torch.cuda.get_per_process_memory_fraction() == 0.25
        with pytest.raises(torch.cuda.OutOfMemoryError, match=r"256.00 MiB allowed; Of the"):
            torch.empty(MEMORY // 2, dtype=torch.uint8, device="cuda")
        torch.empty(MEMORY // 8, dtype=torch.uint8, device="cuda")
        torch.empty(MEMORY // 2, dtype=torch.uint8, device="cuda:1")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    torch.empty(MEMORY // 2, dtype=torch.uint8, device="cuda")


@pytest.mark.parametrize("policy", ["off", "serial", "pipelined"])
def test_nothing_is_left_behind(run_program: Run, policy: str) -> None:
    program = """
        import torch
        assert torch.cuda.memory_allocated() == 0
        memory = torch.ones(3 << 20, pin_memory=True)
        for _ in range(4):  # foreseen from the third on
            on_device = memory.to("cuda", non_blocking=True)
        on_device.cpu()
        assert torch.cuda.memory_allocated() == memory.nbytes
        del on_device
        torch.cuda.synchronize()
        assert torch.cuda.memory_allocated() == 0
        free, total = torch.cuda.mem_get_info()
        assert free == total, total - free
    """
    done = run_program(program, environment={POLICY: policy})
    assert done.returncode == 0, done.stderr


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
