# mypy: disable-error-code="no-untyped-call"
"""Tensors go to files and come back; loaders pin what they load."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from .conftest import Run

pytestmark = pytest.mark.usefixtures("gpu")


def reload(value: object, **options: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, **options)


@pytest.mark.parametrize("to", [None, "cuda", "cuda:1", "cpu"])
@pytest.mark.parametrize("place", ["cpu", "cuda:0"])
def test_saved_tensors_load_where_they_are_wanted(place: str, to: str | None) -> None:
    tensor = torch.arange(6.0, device=place)
    loaded = reload({"whole": tensor, "part": tensor[2:]}, map_location=to)
    where = torch.device(to or place)
    assert loaded["whole"].device.type == where.type
    assert where.index is None or loaded["whole"].device == where
    assert loaded["part"].cpu().tolist() == [2, 3, 4, 5]
    loaded["whole"][2] = 9
    assert loaded["part"][0].item() == 9  # still one storage


def test_storages_move_and_copy() -> None:
    storage = torch.arange(4, dtype=torch.uint8).untyped_storage()
    on_device = storage.cuda()
    assert on_device.device == torch.device("cuda:0")
    assert list(on_device.cpu()) == [0, 1, 2, 3]
    assert torch.UntypedStorage(16, device="cuda").nbytes() == 16
    assert torch.UntypedStorage(16).nbytes() == 16
    tensor = torch.ones(3, device="cuda")
    assert torch.equal(copy.deepcopy(tensor), tensor)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", 0])
def test_safetensors_load_onto_the_device(tmp_path: Path, device: str | int) -> None:
    from safetensors.torch import load_file, save_file

    tensors = {"a": torch.arange(10.0), "b": torch.ones(3, 2, dtype=torch.bfloat16)}
    save_file(tensors, tmp_path / "x.safetensors")
    loaded = load_file(tmp_path / "x.safetensors", device=device)
    assert all(tensor.is_cuda for tensor in loaded.values())
    assert all(torch.equal(loaded[name].cpu(), tensors[name]) for name in tensors)


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_pin_memory(run_program: Run, workers: int) -> None:
    program = f"""
        import torch
        from torch.utils.data import DataLoader, TensorDataset
        data = TensorDataset(torch.arange(12.0).view(6, 2))
        torch.ones(1, device="cuda")
        seen = []
        for (batch,) in DataLoader(data, batch_size=2, pin_memory=True, num_workers={workers}):
            assert batch.is_pinned()
            seen.append(batch.to("cuda", non_blocking=True))
        assert torch.cat(seen).flatten().tolist() == list(range(12))
    """
    done = run_program(program)
    assert done.returncode == 0, done.stderr


def test_a_loader_in_this_process_pins_too() -> None:
    data = TensorDataset(torch.ones(4, 2))
    assert all(batch.is_pinned() for (batch,) in DataLoader(data, pin_memory=True))
