"""Every copy gives what it gives on the CPU, at the time that CUDA's rules promise."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from .emulated_gpu import D2H, H2D, POLICY, Gpu

pytestmark = pytest.mark.usefixtures("gpu")
lazy = pytest.mark.skipif(POLICY in os.environ, reason="only the fake driver is late on purpose")

PLACES = ["cpu", "pinned", "cuda:0", "cuda:1"]
TYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.complex64]


@dataclass(frozen=True)
class Layout:
    """How a tensor of some shape lies in its storage."""

    order: tuple[int, ...]
    step: int
    offset: int
    dtype: torch.dtype

    def empty(self, shape: tuple[int, ...], place: str) -> torch.Tensor:
        stored = [shape[dimension] for dimension in self.order]
        sizes = (self.offset + stored[0] * self.step, *stored[1:])
        device, pinned = ("cpu", True) if place == "pinned" else (place, False)
        whole = torch.zeros(sizes, dtype=self.dtype, device=device, pin_memory=pinned)
        strided = whole[self.offset :: self.step][: stored[0]]
        back = [self.order.index(dimension) for dimension in range(len(shape))]
        return strided.permute(back)


layouts = st.builds(
    Layout,
    order=st.permutations(range(3)).map(tuple),
    step=st.integers(1, 3),
    offset=st.integers(0, 2),
    dtype=st.sampled_from(TYPES),
)
shapes = st.tuples(*[st.integers(1, 5)] * 3)


def values(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    numbers = torch.arange(1, 1 + torch.Size(shape).numel()).reshape(shape)
    return (numbers * (1 - 2j) if dtype.is_complex else numbers).to(dtype)


@pytest.mark.filterwarnings("ignore:Casting complex values to real")
@settings(max_examples=300, deadline=None)
@given(
    shape=shapes,
    source=layouts,
    destination=layouts,
    places=st.tuples(st.sampled_from(PLACES), st.sampled_from(PLACES)),
    non_blocking=st.booleans(),
    conjugated=st.booleans(),
    broadcast=st.booleans(),
)
def test_a_copy_equals_the_same_copy_on_the_cpu(
    shape: tuple[int, int, int],
    source: Layout,
    destination: Layout,
    places: tuple[str, str],
    non_blocking: bool,
    conjugated: bool,
    broadcast: bool,
) -> None:
    from_shape = (1, *shape[1:]) if broadcast else shape
    content = values(from_shape, source.dtype)
    results = []
    for from_place, to_place in [("cpu", "cpu"), places]:
        a = source.empty(from_shape, from_place)
        a.copy_(content)
        b = destination.empty(shape, to_place)
        b.copy_(a.conj() if conjugated else a, non_blocking=non_blocking)
        del a  # its memory must live until the copy is over
        if non_blocking and to_place == "pinned":
            torch.cuda.synchronize(0)
            torch.cuda.synchronize(1)
        results.append(b.cpu().resolve_conj())
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)


def test_a_dense_transposed_tensor_crosses_in_one_flat_copy(gpu: Gpu) -> None:
    matrix = torch.arange(12.0).reshape(3, 4).t()
    before, allocated = gpu.copies(H2D), torch.cuda.memory_stats()["allocation.all.current"]
    on_device = matrix.to("cuda")
    assert gpu.copies(H2D) == before + 1
    assert torch.cuda.memory_stats()["allocation.all.current"] == allocated + 1
    assert on_device.stride() == matrix.stride()
    assert torch.equal(on_device.cpu(), matrix)


@lazy
def test_an_asynchronous_copy_reads_its_pinned_source_late() -> None:
    source = torch.zeros(8, pin_memory=True)
    copied = source.to("cuda", non_blocking=True)
    source.fill_(7)  # too early, and the program's fault
    torch.cuda.synchronize()
    assert copied.tolist() == [7] * 8


def test_an_asynchronous_copy_reads_pageable_memory_at_once() -> None:
    source = torch.zeros(8)
    copied = source.to("cuda", non_blocking=True)
    source.fill_(7)
    assert copied.tolist() == [0] * 8


def test_a_strided_host_destination_is_never_filled_late() -> None:
    destination = torch.zeros(4, 2, pin_memory=True)
    destination[:, 1].copy_(torch.ones(4, device="cuda"), non_blocking=True)
    assert destination[:, 1].tolist() == [1] * 4


def test_kernels_see_every_earlier_copy_of_their_stream() -> None:
    source = torch.full((4,), 3.0, pin_memory=True)
    doubled = source.to("cuda", non_blocking=True) * 2
    back = doubled.to("cpu", non_blocking=True)
    torch.cuda.synchronize()
    assert back.tolist() == [6] * 4


@lazy
def test_buffers_live_until_their_copy_is_over() -> None:
    free, _ = torch.cuda.mem_get_info()
    source = torch.ones(1000, pin_memory=True)
    source.to("cuda", non_blocking=True)  # nobody keeps the result
    assert torch.cuda.mem_get_info()[0] < free
    torch.cuda.synchronize()
    assert torch.cuda.mem_get_info()[0] == free


def test_item_and_shapes_that_depend_on_data_cross_the_bus(gpu: Gpu) -> None:
    tensor = torch.tensor([0, 5, 0, 6], device="cuda")
    before = gpu.copies(D2H)
    assert tensor[1].item() == 5
    assert gpu.copies(D2H) == before + 1
    assert tensor.nonzero().shape == (2, 1)
    assert gpu.copies(D2H) == before + 2


def test_a_lost_context_raises_what_cuda_raises(gpu: Gpu) -> None:
    if gpu.lose_context is None:
        pytest.skip("only the fake driver fails on request")
    gpu.lose_context()
    with pytest.raises(torch.AcceleratorError, match="H2D message 7: context lost") as error:
        torch.ones(4).to("cuda")
    assert isinstance(error.value, RuntimeError)
    gpu.lose_context()
    with pytest.raises(torch.AcceleratorError):
        torch.ones(4, pin_memory=True).to("cuda", non_blocking=True)


def test_threads_copy_side_by_side() -> None:
    def there_and_back(seed: int) -> bool:
        generator = torch.Generator().manual_seed(seed)
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(50):
                tensor = torch.rand(257, generator=generator).pin_memory()
                copied = tensor.to("cuda", non_blocking=True)
                if not torch.equal((copied + 1).cpu(), tensor + 1):
                    return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(there_and_back, range(8)))
