"""Storages on the device, which a CPU build of torch makes and resizes for tensors only.

`torch.load(map_location="cuda")`, `storage.cuda()` and sharded training (which frees and regrows
the storages of parameters) work on storages themselves.
"""

from __future__ import annotations

from typing import Any

import torch

_new = torch.UntypedStorage.__new__
_resize = torch.UntypedStorage.resize_


def new(cls: type[torch.UntypedStorage], *args: Any, **kwargs: Any) -> torch.UntypedStorage:
    """`UntypedStorage(nbytes, device="cuda")`; everything else as before."""
    device = kwargs.get("device")
    if device is None or torch.device(device).type != "cuda":
        storage: torch.UntypedStorage = _new(cls, *args, **kwargs)
        return storage
    content = args[0] if args else kwargs.get("size", 0)
    if isinstance(content, int):
        return torch.empty(content, dtype=torch.uint8, device=device).untyped_storage()
    return torch.tensor(list(content), dtype=torch.uint8, device=device).untyped_storage()


def resize_(storage: torch.UntypedStorage, nbytes: int) -> torch.UntypedStorage:
    if storage.is_cuda:
        torch.ops.pipellm.resize_storage(storage, nbytes)
    else:
        _resize(storage, nbytes)
    return storage


def install() -> None:
    setattr(torch.UntypedStorage, "__new__", staticmethod(new))  # noqa: B010 (mypy knows no better)
    setattr(torch.UntypedStorage, "resize_", resize_)  # noqa: B010
