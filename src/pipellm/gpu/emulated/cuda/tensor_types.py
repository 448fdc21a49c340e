"""`torch.cuda.FloatTensor` and its like: a tensor's type on the device, by its old name."""

from __future__ import annotations

from typing import Any

import torch

DTYPES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}


class TensorType(type):
    """A type that tensors of `dtype` on a device are instances of, and that makes them."""

    dtype: torch.dtype
    is_cuda = True

    def __instancecheck__(cls, instance: object) -> bool:
        return (
            isinstance(instance, torch.Tensor)
            and instance.is_cuda
            and instance.dtype == cls.dtype
            and instance.layout == torch.strided
        )

    def __call__(cls, *args: Any, device: Any = "cuda") -> torch.Tensor:
        """`FloatTensor(2, 3)` is not initialised, `FloatTensor([1, 2])` is a tensor of these."""
        if torch.device(device).type != "cuda":
            raise RuntimeError(f"legacy constructor expects device type: cuda but got {device}")
        if len(args) == 1 and not isinstance(args[0], (int, torch.Size)):
            return torch.as_tensor(args[0], dtype=cls.dtype, device=device)
        return torch.empty(*(args or (0,)), dtype=cls.dtype, device=device)


_set_default = torch._C._set_default_tensor_type


def set_default_tensor_type(kind: Any) -> None:
    """Of `torch.set_default_tensor_type`, for the device's types, too."""
    if isinstance(kind, TensorType):
        torch.set_default_dtype(kind.dtype)
        torch.set_default_device("cuda")
    else:
        torch.set_default_device(None)
        _set_default(kind)


def install() -> None:
    for name, dtype in DTYPES.items():
        # `tensor.type(...)` reads the whole name from the type itself.
        full = f"torch.cuda.{name}Tensor"
        setattr(torch.cuda, f"{name}Tensor", TensorType(full, (), {"dtype": dtype}))
    setattr(torch._C, "_set_default_tensor_type", set_default_tensor_type)  # noqa: B010
