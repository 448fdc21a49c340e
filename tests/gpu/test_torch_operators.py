"""Operators on the device give what they give on the CPU, and refuse what CUDA refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

pytestmark = pytest.mark.usefixtures("gpu")

Operation = Callable[[torch.Tensor], object]

SAME_AS_ON_THE_CPU: dict[str, Operation] = {
    "arithmetic": lambda x: (x * 2 + 1) / (x.abs() + 1),
    "scalar from the host": lambda x: x + torch.tensor(2.0),
    "matmul": lambda x: x @ x.t(),
    "einsum": lambda x: torch.einsum("ij,kj->ik", x, x),
    "reductions": lambda x: (x.sum(), x.mean(0), x.max(), x.std(), x.norm()),
    "sort": lambda x: torch.sort(x, dim=1),
    "topk": lambda x: x.topk(3),
    "cumsum": lambda x: x.cumsum(1),
    "where": lambda x: torch.where(x > 0, x, -x),
    "cat and split": lambda x: torch.cat(x.split(2)),
    "stack and unbind": lambda x: torch.stack(x.unbind(1)),
    "nonzero": lambda x: (x > 0).nonzero(),
    "masked_select": lambda x: x.masked_select(x > 0),
    "masked_fill": lambda x: x.masked_fill(x > 0, 1.0),
    "boolean mask": lambda x: x[x > 0],
    "index": lambda x: x[torch.tensor([0, 3], device=x.device), 1:],
    "index from the host": lambda x: x[torch.tensor([0, 3])],
    "gather": lambda x: x.gather(1, torch.zeros(8, 2, dtype=torch.long, device=x.device)),
    "index_put_": lambda x: x.clone().index_put_((torch.tensor([1, 1]),), x[:2], accumulate=True),
    "scatter_add": lambda x: torch.zeros_like(x).scatter_add(1, x.long().abs() % 6, x),
    "setitem": lambda x: _assign(x.clone()),
    "in place on a view": lambda x: _through_view(x.clone()),
    "unique": lambda x: x.round().unique(),
    "bincount": lambda x: torch.bincount(x.flatten().long().abs()),
    "item": lambda x: torch.tensor(x[2, 3].item()),
    "equal": lambda x: torch.tensor(torch.equal(x, x.clone())),
    "complex": lambda x: torch.view_as_complex(x.view(8, 3, 2)).conj() * 2j,
    "fft": lambda x: torch.fft.rfft(x),
    "linalg": lambda x: torch.linalg.inv(x @ x.t() + torch.eye(8, device=x.device)),
    "softmax of halves": lambda x: functional.softmax(x.half(), -1, dtype=torch.float32),
    "log_softmax of halves": lambda x: functional.log_softmax(x.half(), -1, dtype=torch.float32),
    "layer_norm": lambda x: functional.layer_norm(x, (6,)),
    "rms_norm": lambda x: functional.rms_norm(x, (6,)),
    "cross_entropy": lambda x: functional.cross_entropy(x, x.long().abs()[:, 0] % 6),
    "embedding": lambda x: functional.embedding(x.long().abs() % 8, x),
    "convolution": lambda x: functional.conv1d(x.view(1, 8, 6), x.view(8, 2, 3), groups=4),
    "depthwise convolution": lambda x: functional.conv1d(
        x.view(1, 8, 6), x[:, :3].reshape(8, 1, 3), groups=8
    ),
    "attention": lambda x: functional.scaled_dot_product_attention(
        x.view(1, 2, 4, 6), x.view(1, 2, 4, 6), x.view(1, 2, 4, 6), is_causal=True
    ),
    "printing": lambda x: torch.tensor(len(repr(x).removesuffix(", device='cuda:0')"))) * 0,
    "foreach": lambda x: torch._foreach_add([x, x + 1], 1.0),
    "repeat_interleave": lambda x: x.repeat_interleave(torch.arange(8, device=x.device), dim=0),
    "out=, resized": lambda x: torch.add(x, 1, out=torch.empty(0, device=x.device)),
    "out=, strided": lambda x: torch.add(x, 1, out=torch.empty(6, 8, device=x.device).t()),
}


INTEGERS = (torch.int32, torch.int64, torch.int16, torch.int8, torch.uint8)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize(("bins", "low", "high"), [(4, 0, 3), (9, -4, 4), (5, 0, 0), (1, 0, 100)])
def test_histograms_of_integers_count(dtype: torch.dtype, bins: int, low: int, high: int) -> None:
    x = (torch.arange(12).square() % 7).to(dtype)
    counts = x.cuda().histc(bins, low, high)
    assert counts.dtype == dtype
    assert torch.equal(counts.float().cpu(), x.float().histc(bins, low, high))


def test_bins_of_a_histogram_of_integers_are_of_whole_numbers_as_cudas_are() -> None:
    x = torch.arange(10, device="cuda")
    assert x.histc(4, 0, 9).tolist() == [3, 2, 2, 3]  # (x * 4) // 9; the last has both its bounds
    assert x.histc(2, 3, 3).tolist() == [5, 5]
    assert torch.full((3,), 5, device="cuda").histc(2).tolist() == [0, 3]
    assert torch.histc(x, 2, 0, 9, out=torch.empty(0, dtype=torch.long, device="cuda")).sum() == 10
    with pytest.raises(RuntimeError, match="max must be larger than min"):
        x.histc(2, 4, 3)
    with pytest.raises(RuntimeError, match="bins must be > 0"):
        x.histc(0)


def _assign(x: torch.Tensor) -> torch.Tensor:
    x[1:3, ::2] = 9.0
    x[torch.tensor([4, 5])] = x[0].clone()
    x[x < 0] = 0.0
    return x


def _through_view(x: torch.Tensor) -> torch.Tensor:
    x.t()[2].mul_(3).add_(1)
    x.view(-1)[::5].zero_()
    return x


def flatten(value: object) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else [*value]  # type: ignore[misc]


@pytest.mark.parametrize("name", SAME_AS_ON_THE_CPU)
def test_as_on_the_cpu(name: str) -> None:
    operation = SAME_AS_ON_THE_CPU[name]
    generator = torch.Generator().manual_seed(1)
    host = torch.randn(8, 6, generator=generator) * 2
    device = host.cuda()
    for expected, result in zip(flatten(operation(host)), flatten(operation(device)), strict=True):
        assert result.is_cuda or name in ("item", "equal", "printing")
        torch.testing.assert_close(result.cpu(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(device.cpu(), host)


@pytest.mark.parametrize("name", ["softmax of halves", "log_softmax of halves"])
def test_the_gradient_of_a_mixed_precision_softmax_has_the_inputs_type(name: str) -> None:
    host = torch.randn(8, 6, requires_grad=True)
    device = host.detach().cuda().requires_grad_()
    for tensor in host, device:
        result = SAME_AS_ON_THE_CPU[name](tensor)
        assert isinstance(result, torch.Tensor)
        result.square().sum().backward()
    assert host.grad is not None
    assert device.grad is not None
    torch.testing.assert_close(device.grad.cpu(), host.grad, rtol=1e-2, atol=1e-2)


def test_a_resized_result_keeps_its_storage_object() -> None:
    out = torch.empty(2, device="cuda")
    storage = out.untyped_storage()
    with pytest.warns(UserWarning, match="resized"):
        torch.add(torch.ones(100, device="cuda"), 1, out=out)
    assert out.untyped_storage()._cdata == storage._cdata
    assert storage.nbytes() == 400
    assert out.sum().item() == 200


REFUSED: dict[str, Operation] = {
    "a host tensor": lambda x: x + torch.ones(8, 6),
    "a host tensor first": lambda x: torch.ones(8, 6) + x,
    "a host tensor in a list": lambda x: torch.cat([x, torch.ones(8, 6)]),
    "a host tensor to write to": lambda x: torch.add(x, 1, out=torch.empty(8, 6)),
    "a host scalar to write to": lambda x: torch.sum(x, dim=(0, 1), out=torch.empty(())),
    "a host index of index_select": lambda x: x.index_select(0, torch.tensor([1])),
    "another device's tensor": lambda x: x * torch.ones(8, 6, device="cuda:1"),
    "another device's scalar": lambda x: x * torch.ones((), device="cuda:1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cuda_refuses_is_refused(name: str) -> None:
    with pytest.raises(RuntimeError, match=r"Expected all tensors to be on the same device|on cpu"):
        REFUSED[name](torch.ones(8, 6, device="cuda"))


def test_devices_are_told_apart() -> None:
    one = torch.arange(4.0, device="cuda:1")
    assert (one * 2).device == torch.device("cuda:1")
    assert torch.equal(one.to("cuda:0").cpu(), one.cpu())
    with torch.cuda.device(1):
        assert torch.zeros(1, device="cuda").get_device() == 1
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.ones(1, device="cuda:7")
    assert torch.cuda.device_count() == 2
    assert torch.cuda.get_device_capability(1) == (9, 0)
    assert torch.cuda.get_device_name() == torch.cuda.get_device_properties(0).name


def test_an_operator_of_an_extension_that_knows_only_the_cpu_runs() -> None:
    with torch.library._scoped_library("pipellm_test", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x * 2, "CPU")
        result = torch.ops.pipellm_test.twice(torch.ones(3, device="cuda"))
    assert result.is_cuda
    assert result.tolist() == [2, 2, 2]
