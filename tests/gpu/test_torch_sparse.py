"""Sparse tensors (COO) live on the device as dense ones do; other layouts are refused."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from .emulated_gpu import D2H, H2D, Gpu

pytestmark = [
    pytest.mark.usefixtures("gpu"),
    pytest.mark.filterwarnings("ignore:Sparse"),
]

Operation = Callable[[torch.Tensor], torch.Tensor]


def some() -> torch.Tensor:
    """Not coalesced: one place comes twice."""
    indices = torch.tensor([[0, 1, 1, 3], [2, 0, 0, 4]])
    return torch.sparse_coo_tensor(indices, torch.tensor([1.0, 2.0, 3.0, 4.0]), (4, 5))


def dense(x: torch.Tensor, *shape: int) -> torch.Tensor:
    return torch.linspace(-1, 1, torch.Size(shape).numel(), device=x.device).view(shape)


SAME_AS_ON_THE_CPU: dict[str, Operation] = {
    "coalesce": lambda x: x.coalesce(),
    "indices": lambda x: x.coalesce().indices(),
    "values": lambda x: x.coalesce().values(),
    "to dense": lambda x: x.to_dense(),
    "from dense": lambda x: dense(x, 4, 5).relu().to_sparse(),
    "another type": lambda x: x.double(),
    "clone": lambda x: x.clone(),
    "zeros_like": lambda x: torch.zeros_like(x),
    "sum of two": lambda x: x + x.coalesce(),
    "difference": lambda x: x - 2 * x,
    "added to a dense one": lambda x: dense(x, 4, 5) + x,
    "product with a scalar": lambda x: x * 3,
    "product of two": lambda x: x * x,
    "matrix product with a dense one": lambda x: torch.sparse.mm(x, dense(x, 5, 3)),
    "matrix product of two": lambda x: torch.sparse.mm(x, x.t()),
    "addmm": lambda x: torch.sparse.addmm(dense(x, 4, 3), x, dense(x, 5, 3)),
    "batched product": lambda x: torch.stack([x, x]).bmm(dense(x, 2, 5, 3)),
    "sum": lambda x: torch.sparse.sum(x),
    "sum over rows": lambda x: torch.sparse.sum(x, 0),
    "softmax": lambda x: torch.sparse.softmax(x, 1),
    "mask": lambda x: dense(x, 4, 5).sparse_mask(x.coalesce()),
    "transposed": lambda x: x.t(),
    "concatenated": lambda x: torch.cat([x, x], 1),
    "selected": lambda x: x.index_select(0, torch.tensor([1, 3], device=x.device)),
    "in place": lambda x: x.add_(x.clone()).mul_(2),
    "emptied": lambda x: x.zero_(),
    "square root, in place": lambda x: x.coalesce().sqrt_(),
    "dense rest": lambda x: torch.sparse_coo_tensor(
        x._indices()[:1], dense(x, 4, 2), (4, 2), device=x.device
    ),
}


@pytest.mark.parametrize("name", SAME_AS_ON_THE_CPU)
def test_as_on_the_cpu(name: str) -> None:
    host, device = some(), some().cuda()
    expected, result = SAME_AS_ON_THE_CPU[name](host), SAME_AS_ON_THE_CPU[name](device)
    assert result.is_cuda
    assert result.layout == expected.layout
    if expected.is_sparse:
        assert result._values().is_cuda
        assert result.is_coalesced() == expected.is_coalesced()
    torch.testing.assert_close(result.cpu(), expected)
    torch.testing.assert_close(device.cpu(), host)


def test_indices_and_values_cross_the_link_and_nothing_else(gpu: Gpu) -> None:
    host = some()
    before = gpu.copies(H2D), gpu.copies(D2H)
    device = host.cuda()
    assert (gpu.copies(H2D), gpu.copies(D2H)) == (before[0] + 2, before[1])
    (device * 2).t()
    assert device._nnz() == 4
    assert (gpu.copies(H2D), gpu.copies(D2H)) == (before[0] + 2, before[1])
    device.cpu()
    assert gpu.copies(D2H) == before[1] + 2


def test_a_sparse_tensors_memory_is_the_devices() -> None:
    before = torch.cuda.memory_allocated()
    device = some().cuda()
    assert torch.cuda.memory_allocated() == before + 2 * 512
    del device
    assert torch.cuda.memory_allocated() == before


@pytest.mark.parametrize(
    "optimizer", [torch.optim.SGD, torch.optim.Adagrad, torch.optim.SparseAdam]
)
def test_an_embedding_with_sparse_gradients_trains_as_the_cpus(
    optimizer: Callable[..., torch.optim.Optimizer],
) -> None:
    torch.manual_seed(0)
    host = torch.nn.Embedding(6, 3, sparse=True)
    device = copy.deepcopy(host).cuda()
    for layer, where in (host, "cpu"), (device, "cuda"):
        step = optimizer(layer.parameters(), lr=0.1)
        for _ in range(3):
            step.zero_grad()
            layer(torch.tensor([1, 1, 4], device=where)).square().sum().backward()
            assert layer.weight.grad is not None
            assert layer.weight.grad.is_sparse
            step.step()
    torch.testing.assert_close(device.weight.cpu(), host.weight)


def test_gradients_pass_through_sparse_products() -> None:
    a, b = (torch.rand(3, 3, dtype=torch.float64, device="cuda", requires_grad=True) for _ in "ab")
    assert torch.autograd.gradcheck(lambda a, b: torch.sparse.mm(a.to_sparse(), b), (a, b))


def test_host_and_device_are_not_mixed() -> None:
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        some().cuda() + some()


COMPRESSED: dict[str, Callable[[], object]] = {
    "moved and used": lambda: torch.eye(3).to_sparse_csr().cuda().to_dense(),
    "made": lambda: torch.eye(3, device="cuda").to_sparse_csr(),
    "of parts": lambda: torch.sparse_csr_tensor([0, 1], [0], [1.0], device="cuda").to_dense(),
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_layouts_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(NotImplementedError, match=r"has no tensors of .*: use COO") as error:
        COMPRESSED[name]()
    assert "\n" not in str(error.value)
