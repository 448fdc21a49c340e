"""What is said of memory holds for its bytes, whichever tensor shows them, while it stands."""

from __future__ import annotations

import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pipellm
from pipellm.gpu import emulated
from pipellm.runtime.declarations import Declarations
from tests.native.gpu import Gpu

SIZE = 64


class Marked:
    """What the native core was told, byte by byte."""

    def __init__(self) -> None:
        self.bytes: set[int] = set()
        self.declarations = Declarations(self.add, self.remove)

    def add(self, address: int, nbytes: int) -> None:
        self.bytes |= set(range(address, address + nbytes))

    def remove(self, address: int, nbytes: int) -> None:
        self.bytes -= set(range(address, address + nbytes))


@pytest.fixture
def marked() -> Marked:
    return Marked()


def bytes_of(tensor: torch.Tensor) -> set[int]:
    return set(range(tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes))


def buffer() -> torch.Tensor:
    return torch.zeros(SIZE, dtype=torch.uint8)


ends = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE))
slices = ends.map(lambda pair: slice(*sorted(pair)))


@given(steps=st.lists(st.tuples(st.booleans(), slices)))
def test_it_is_said_of_bytes_through_whichever_view(steps: list[tuple[bool, slice]]) -> None:
    marked, tensor = Marked(), buffer()
    storage = weakref.ref(tensor.untyped_storage())
    model: set[int] = set()
    for declare, part in steps:
        if declare:
            marked.declarations.declare(tensor[part])
            model |= bytes_of(tensor[part])
        else:
            marked.declarations.withdraw(tensor[part])
            model -= bytes_of(tensor[part])
        assert marked.bytes == model
    del tensor
    assert (storage() is not None) == bool(model)


def test_a_tensor_that_got_other_memory_keeps_the_old_memory_alive(marked: Marked) -> None:
    """As DeepSpeed's ZeRO-3 and `module.to` give their parameters."""
    parameter = torch.nn.Parameter(torch.ones(1 << 20))
    declared = parameter.data_ptr()
    marked.declarations.declare(parameter)
    parameter.data = torch.empty(0)
    others = [torch.zeros(1 << 20) for _ in range(4)]
    assert declared not in [other.data_ptr() for other in others]
    assert declared in marked.bytes
    marked.declarations.withdraw(parameter)
    assert not marked.bytes


def test_it_is_taken_back_through_every_tensor_it_was_said_of(marked: Marked) -> None:
    module = torch.nn.Linear(8, 8)
    for parameter in module.parameters():
        marked.declarations.declare(parameter)
    module.to(torch.float16)
    for parameter in module.parameters():
        marked.declarations.withdraw(parameter)
    assert not marked.bytes


def test_said_twice_it_is_taken_back_at_once(marked: Marked) -> None:
    tensor = buffer()
    marked.declarations.declare(tensor)
    marked.declarations.declare(tensor.view(8, 8))
    marked.declarations.withdraw(tensor)
    assert not marked.bytes


def test_it_can_be_taken_back_through_a_view_with_gaps(marked: Marked) -> None:
    tensor = buffer().view(8, 8)
    marked.declarations.declare(tensor)
    marked.declarations.withdraw(tensor.t())
    assert not marked.bytes


@pytest.mark.parametrize("release", ["resize_", "share_memory_"])
def test_it_is_over_when_a_storage_has_let_go_of_its_memory(marked: Marked, release: str) -> None:
    """At the next thing that is said; until then, nothing rests on it (`native/memory`)."""
    tensor, other = buffer(), buffer()
    marked.declarations.declare(tensor)
    if release == "resize_":
        tensor.untyped_storage().resize_(0)
    else:
        tensor.share_memory_()
    marked.declarations.declare(other)
    assert marked.bytes == bytes_of(other)


def test_of_an_empty_tensor_nothing_is_said(marked: Marked) -> None:
    marked.declarations.declare(torch.empty(0))
    marked.declarations.withdraw(torch.empty(0))
    assert not marked.bytes


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    gpu = Gpu()
    monkeypatch.setattr(emulated, "_driver", gpu.driver)
    return gpu


@pytest.mark.usefixtures("gpu")
def test_only_dense_host_memory_can_be_spoken_of() -> None:
    sparse = torch.zeros(4, 4).to_sparse()
    with pytest.raises(ValueError, match="only dense tensors in host memory"):
        pipellm.never_ahead(buffer(), sparse)
    with pytest.raises(ValueError, match="only contiguous tensors in host memory"):
        pipellm.declare_immutable(buffer(), buffer().view(8, 8).t())
    with pytest.raises(ValueError, match="only contiguous tensors in host memory"):
        pipellm.declare_immutable(torch.empty(4, device="meta"))


def test_the_calls_reach_the_driver(gpu: Gpu) -> None:
    tensor = buffer()
    pipellm.declare_immutable(tensor)
    pipellm.never_ahead(tensor)
    address = tensor.data_ptr()
    assert gpu.driver.withdraw_immutable(address, SIZE)
    assert gpu.driver.allow_ahead(address, SIZE)
    pipellm.declare_immutable(tensor)
    pipellm.never_ahead(tensor)
    pipellm.withdraw_immutable(tensor[: SIZE // 2], tensor[SIZE // 2 :])
    pipellm.allow_ahead(tensor)
    assert not gpu.driver.withdraw_immutable(address, SIZE)
    assert not gpu.driver.allow_ahead(address, SIZE)


def test_without_a_device_there_is_nobody_to_tell() -> None:
    for say in (pipellm.declare_immutable, pipellm.never_ahead):
        with pytest.raises(RuntimeError, match="no emulated GPU"):
            say(buffer())
